import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Status, type StatusError } from '../../../src/grpc/status.ts';
import { createUnfinishedRequests } from '../../../src/grpc/unfinished.ts';

const anHour = 3_600_000;

describe('unfinished requests', () => {
  it('are refused oldest first when they hold too much, patient or not', () => {
    const refused: [string, number][] = [];
    const requests = createUnfinishedRequests(100, anHour);
    const begin = (name: string, patience: 'hurried' | 'patient') =>
      requests.begin(({ status }) => refused.push([name, status]), patience);
    const empty = begin('empty', 'hurried');
    const [a, b, c] = [begin('a', 'patient'), begin('b', 'hurried'), begin('c', 'hurried')];
    requests.keep(a, 30);
    requests.keep(b, 30);
    requests.keep(c, 40);
    requests.keep(c, 10);
    requests.keep(c, 40);
    assert.deepEqual(refused, []);
    requests.keep(c, 71);
    assert.deepEqual(refused, [
      ['a', Status.RESOURCE_EXHAUSTED],
      ['b', Status.RESOURCE_EXHAUSTED],
    ]);
    requests.keep(c, 101);
    assert.deepEqual(refused.at(-1), ['c', Status.RESOURCE_EXHAUSTED]);
    requests.keep(empty, 100);
    assert.equal(refused.length, 3);
    for (const request of [empty, a, b, c]) requests.done(request);
  });

  it('count no more once they are done, however often that is said', () => {
    const requests = createUnfinishedRequests(100, anHour);
    const mine: StatusError[] = [];
    for (let n = 0; n < 1000; n++) {
      const request = requests.begin((reason) => mine.push(reason), 'hurried');
      requests.keep(request, 60);
      requests.done(request);
      requests.done(request);
      requests.keep(request, 60);
    }
    assert.deepEqual(mine, []);
  });

  it('are refused when they take too long, unless they are patient', async () => {
    const requests = createUnfinishedRequests(100, 20);
    let patient = 0;
    const waiting = requests.begin(() => (patient += 1), 'patient');
    const done = requests.begin(() => assert.fail('was whole'), 'hurried');
    requests.done(done);
    const keepAlive = setInterval(() => {}, 1000);
    const reason = await new Promise<StatusError>((resolve) => requests.begin(resolve, 'hurried'));
    clearInterval(keepAlive);
    assert.equal(reason.status, Status.DEADLINE_EXCEEDED);
    assert.equal(patient, 0);
    requests.done(waiting);
  });
});
