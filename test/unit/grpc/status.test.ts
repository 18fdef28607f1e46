import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { status as grpcStatus } from '@grpc/grpc-js';
import { nameOf, Status, StatusError, toWireStatus } from '../../../src/grpc/status.ts';
import { AppError, type ErrorCode, LimitError, MalformedError } from '../../../src/runtime/errors.ts';

describe('a handler error on its way to the caller', () => {
  const expected: Record<ErrorCode, number> = {
    malformed: grpcStatus.INVALID_ARGUMENT,
    invalid_argument: grpcStatus.INVALID_ARGUMENT,
    not_found: grpcStatus.NOT_FOUND,
    permission_denied: grpcStatus.PERMISSION_DENIED,
    unavailable: grpcStatus.UNAVAILABLE,
    unimplemented: grpcStatus.UNIMPLEMENTED,
    timeout: grpcStatus.DEADLINE_EXCEEDED,
    aborted: grpcStatus.CANCELLED,
    limit_exceeded: grpcStatus.RESOURCE_EXHAUSTED,
    conflict: grpcStatus.ABORTED,
    config: grpcStatus.INTERNAL,
    internal: grpcStatus.INTERNAL,
  };
  for (const [code, status] of Object.entries(expected)) {
    it(`of code ${code} becomes ${grpcStatus[status]}`, () => {
      assert.equal(toWireStatus(new AppError(code as ErrorCode, 'why')).code, status);
    });
  }

  it('keeps the message of an AppError', () => {
    assert.equal(toWireStatus(new LimitError('too many names')).details, 'too many names');
  });

  it('keeps a StatusError as it is', () => {
    const error = new StatusError(Status.UNAUTHENTICATED, 'who are you');
    assert.deepEqual(toWireStatus(error), { code: 16, details: 'who are you' });
  });

  it('does not tell the text of an internal or unknown error', () => {
    for (const error of [new Error('s3cret'), 's3cret', new AppError('internal', 's3cret'), undefined]) {
      assert.deepEqual(toWireStatus(error), { code: 13, details: 'internal error' });
    }
  });

  it('is cut to a bounded length and has no broken characters, which grpc-js cannot encode', () => {
    const { details } = toWireStatus(new MalformedError(`\ud800${'x'.repeat(5000)}`));
    assert.equal(details.length, 1024);
    assert.doesNotThrow(() => encodeURI(details));
    const cut = toWireStatus(new MalformedError('😀'.repeat(1000).slice(1)));
    assert.doesNotThrow(() => encodeURI(cut.details));
  });
});

describe('the status table', () => {
  it('has the names and numbers of gRPC', () => {
    const theirs = Object.entries(grpcStatus).filter(([, value]) => typeof value === 'number');
    assert.deepEqual(Object.entries(Status), theirs);
  });

  it('names a status, known or not', () => {
    assert.equal(nameOf(14), 'UNAVAILABLE');
    assert.equal(nameOf(99), 'status 99');
  });

  it('gives a StatusError the code that its callers branch on', () => {
    assert.equal(new StatusError(Status.UNAVAILABLE, '').code, 'unavailable');
    assert.equal(new StatusError(Status.PERMISSION_DENIED, '').code, 'permission_denied');
    assert.equal(new StatusError(Status.INVALID_ARGUMENT, '').code, 'invalid_argument');
    assert.equal(new StatusError(99, '').code, 'internal');
    assert.equal(new StatusError(Status.UNAVAILABLE, '').message, 'UNAVAILABLE: no details given');
  });
});
