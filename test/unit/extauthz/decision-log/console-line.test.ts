import assert from 'node:assert/strict';
import { test } from 'node:test';
import { consoleLine } from '../../../../src/extauthz/decision-log/console-line.ts';

test('a line of the console is one JSON object: the record, and the type by which pipelines find it', () => {
  const record = { decision_id: 'a', result: true, timestamp: '2026-06-01T12:00:00.000Z' };
  const line = consoleLine(JSON.stringify(record), Date.parse('2026-06-01T12:00:01.000Z'));
  assert.match(line, /^[^\n]+\n$/);
  assert.deepEqual(JSON.parse(line), {
    type: 'openpolicyagent.org/decision_logs',
    level: 'info',
    msg: 'Decision Log',
    time: '2026-06-01T12:00:01.000Z',
    ...record,
  });
});
