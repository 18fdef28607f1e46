import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createEventStream } from '../../../src/admin/event-stream.ts';
import { createManualClock, settled } from '../../support/manual-clock.ts';

function listen(maxClients = 2) {
  const clock = createManualClock(0);
  const events = createEventStream({ sleep: clock.sleep, maxClients });
  const stop = new AbortController();
  const client = () => {
    const heard: string[] = [];
    const done = (async () => {
      for await (const chunk of events.open(stop.signal)) heard.push(chunk);
    })();
    return { heard, done };
  };
  return { clock, events, stop, client };
}

describe('event stream', () => {
  it('hands each event to everybody who listens, and to nobody who comes later', async () => {
    const { events, stop, client } = listen();
    const a = client();
    await settled();
    events.publish({ name: 'svid_update', data: { svids: [] } });
    await settled();
    const b = client();
    await settled();
    events.publish({ name: 'source_error', data: { message: 'line\nbreak' } });
    await settled();
    assert.deepEqual(a.heard, [
      ': svidecar\nretry: 3000\n\n',
      'event: svid_update\ndata: {"svids":[]}\n\n',
      'event: source_error\ndata: {"message":"line\\nbreak"}\n\n',
    ]);
    assert.equal(b.heard.length, 2);
    stop.abort();
    await Promise.all([a.done, b.done]);
  });

  it('sends a comment when nothing happens, so that the connection is not taken for dead', async () => {
    const { clock, events, stop, client } = listen();
    const { heard, done } = client();
    await clock.advance(15_000);
    assert.equal(heard.at(-1), ': heartbeat\n\n');
    events.publish({ name: 'bundle_update', data: 1 });
    await settled();
    await clock.advance(14_999);
    assert.equal(heard.length, 3);
    stop.abort();
    await done;
  });

  it('is full at its bound, and has room again when a client is gone', async () => {
    const { events, stop, client } = listen(1);
    assert.equal(events.full(), false);
    const { done } = client();
    await settled();
    assert.equal(events.full(), true);
    stop.abort();
    await done;
    assert.equal(events.full(), false);
  });

  it('lets go of a client that lags far behind', async () => {
    const { events, stop } = listen();
    const slow = events.open(stop.signal)[Symbol.asyncIterator]();
    await slow.next();
    for (let i = 0; i < 1000; i += 1) events.publish({ name: 'svid_update', data: i });
    assert.equal((await slow.next()).done, true);
    assert.equal(events.full(), false);
  });
});
