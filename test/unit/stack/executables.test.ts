import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { AppError } from '../../../src/runtime/errors.ts';
import { findExecutable, pathDirectories, requireExecutable } from '../../../src/stack/executables.ts';

let directory = '';
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'svidecar-test-'));
  await writeFile(join(directory, 'tool'), '#!/bin/sh\n');
  await chmod(join(directory, 'tool'), 0o755);
});
after(() => rm(directory, { recursive: true, force: true }));

test('the first directory that holds the program wins', async () => {
  assert.equal(await findExecutable('tool', ['/nonexistent', directory]), join(directory, 'tool'));
});

test('a missing program is undefined for find, and for require an error that says where it looked and what to do', async () => {
  assert.equal(await findExecutable('none', [directory]), undefined);
  await assert.rejects(requireExecutable('none', [directory], 'run the set-up'), (error) => {
    assert.ok(error instanceof AppError);
    assert.equal(error.code, 'not_found');
    assert.equal(error.message, `no none in ${directory}: run the set-up`);
    return true;
  });
});

test('relative and empty entries of a search path are dropped', () => {
  assert.deepEqual(pathDirectories('/usr/bin::.:bin:/bin'), ['/usr/bin', '/bin']);
  assert.deepEqual(pathDirectories(undefined), []);
});
