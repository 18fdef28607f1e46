import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, errnoOf, MalformedError, toAppError } from '../../../src/runtime/errors.ts';

test('a config error prints every problem on a line of its own, behind its key path', () => {
  const error = new ConfigError([
    { path: 'listen', message: 'is not an address' },
    { path: '', message: 'file is empty' },
  ]);
  assert.equal(error.message, 'listen: is not an address\nfile is empty');
});

test('toAppError keeps an AppError and wraps everything else as internal with its cause', () => {
  const own = new MalformedError('too short');
  assert.equal(toAppError(own), own);
  const foreign = new TypeError('x');
  assert.equal(toAppError(foreign).code, 'internal');
  assert.equal(toAppError(foreign).cause, foreign);
  assert.equal(toAppError('text').message, 'text');
});

test('errnoOf finds the errno along the chain of causes', () => {
  const system = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
  assert.equal(errnoOf(new Error('outer', { cause: system })), 'ECONNREFUSED');
  assert.equal(errnoOf(new MalformedError('x')), undefined);
});
