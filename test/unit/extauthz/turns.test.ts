import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTurns } from '../../../src/extauthz/turns.ts';

test('each gets a turn of the event loop of its own, in order, and what else is due comes in between', async () => {
  const turn = createTurns();
  const events: string[] = [];
  let over = false;
  const tick = (): void => {
    events.push('.');
    if (!over) setImmediate(tick);
  };
  setImmediate(tick);
  await Promise.all(
    ['a', 'b', 'c'].map(async (name) => {
      await turn();
      events.push(name);
    }),
  );
  over = true;
  assert.match(events.join(''), /^\.*a\.+b\.+c$/);
});
