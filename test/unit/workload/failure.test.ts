import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Status, StatusError } from '../../../src/grpc/status.ts';
import { LimitError, MalformedError, TimeoutError } from '../../../src/runtime/errors.ts';
import { describeFailure } from '../../../src/workload/failure.ts';

const unix = { kind: 'unix', path: '/nowhere/agent.sock' } as const;
const tcp = { kind: 'tcp', host: '127.0.0.1', port: 8081 } as const;

describe('failure of a call', () => {
  const statuses: readonly [keyof typeof Status, string, string][] = [
    ['UNAVAILABLE', 'unavailable', 'unavailable'],
    ['PERMISSION_DENIED', 'permission_denied', 'permission_denied'],
    ['INVALID_ARGUMENT', 'invalid_argument', 'invalid_argument'],
    ['UNIMPLEMENTED', 'unimplemented', 'unimplemented'],
    ['DEADLINE_EXCEEDED', 'timeout', 'timeout'],
    ['UNAUTHENTICATED', 'other', 'permission_denied'],
    ['RESOURCE_EXHAUSTED', 'other', 'limit_exceeded'],
    ['INTERNAL', 'other', 'internal'],
    ['UNKNOWN', 'other', 'internal'],
  ];
  for (const [status, kind, code] of statuses) {
    it(`with ${status} is ${kind}, naming the socket and what the server said`, async () => {
      const failure = await describeFailure(new StatusError(Status[status], 'it said so'), unix);
      assert.deepEqual([failure.kind, failure.error.code], [kind, code]);
      assert.match(failure.error.message, /unix:\/\/\/nowhere\/agent\.sock.*it said so/);
    });
  }

  it('of a connection says what to do, by errno', async () => {
    const cause = (code: string) =>
      new StatusError(Status.UNAVAILABLE, code, { cause: Object.assign(new Error(), { code }) });
    const hints: readonly [string, typeof unix | typeof tcp, RegExp][] = [
      ['ENOENT', unix, /does not exist .*is the agent running/],
      ['ENOTDIR', unix, /does not exist/],
      ['EACCES', unix, /may not be opened .*check owner, mode/],
      ['EPERM', unix, /may not be opened/],
      ['ECONNREFUSED', unix, /nobody listens on/],
      ['ECONNREFUSED', tcp, /tcp:\/\/127\.0\.0\.1:8081 cannot be reached \(ECONNREFUSED\)/],
      ['EHOSTUNREACH', tcp, /cannot be reached \(EHOSTUNREACH\)/],
    ];
    for (const [errno, address, hint] of hints) {
      const failure = await describeFailure(cause(errno), address);
      assert.equal(failure.kind, 'unreachable');
      assert.match(failure.error.message, hint);
    }
  });

  it('of a message is malformed, of time is a timeout, and anything else is other', async () => {
    const limit = new LimitError('too many');
    assert.deepEqual(await describeFailure(limit, unix), { kind: 'malformed', error: limit });
    assert.equal((await describeFailure(new MalformedError('x'), unix)).kind, 'malformed');
    assert.equal((await describeFailure(new TimeoutError('x'), unix)).kind, 'timeout');
    const bug = await describeFailure(new TypeError('x'), unix);
    assert.deepEqual([bug.kind, bug.error.code], ['other', 'internal']);
  });

  it("quotes the server's text only cut and without control characters", async () => {
    const details = `a\nb\u001b[31m${'x'.repeat(10_000)}`;
    for (const status of [Status.UNAVAILABLE, Status.INTERNAL]) {
      const { error } = await describeFailure(new StatusError(status, details), unix);
      assert.ok(error.message.length < 500);
      assert.match(error.message, /a b \[31mxxx/);
    }
  });
});
