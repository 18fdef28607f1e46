import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, chown, mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AppError, LimitError } from '../../../src/runtime/errors.ts';
import { createKeptFiles } from '../../../src/runtime/kept-files.ts';
import { tempDirectory } from '../../support/process.ts';

test('what is saved is loaded as it was, and gone once removed', async (t) => {
  const files = await createKeptFiles(join(await tempDirectory(t), 'a/b'), 100);
  assert.equal(await files.load('x'), undefined);
  await files.save('x', 'first');
  await files.save('x', Buffer.of(0xff, 0));
  assert.deepEqual((await files.load('x'))?.bytes, Buffer.of(0xff, 0));
  await files.remove('x');
  await files.remove('x');
  assert.equal(await files.load('x'), undefined);
});

test('files are 0600 in a directory 0700', async (t) => {
  const directory = join(await tempDirectory(t), 'kept');
  await (await createKeptFiles(directory, 100)).save('x', 'y');
  assert.equal((await stat(join(directory, 'x'))).mode & 0o777, 0o600);
  assert.equal((await stat(directory)).mode & 0o777, 0o700);
});

test('a save that fails leaves the old file and nothing half-written', async (t) => {
  const directory = await tempDirectory(t);
  const files = await createKeptFiles(directory, 100);
  await mkdir(join(directory, 'x'));
  await assert.rejects(files.save('x', 'y'));
  assert.deepEqual(await readdir(directory), ['x']);
});

test('a file that is too large is refused', async (t) => {
  const directory = await tempDirectory(t);
  const files = await createKeptFiles(directory, 100);
  await writeFile(join(directory, 'x'), ' '.repeat(100));
  assert.equal((await files.load('x'))?.bytes.length, 100);
  await writeFile(join(directory, 'x'), ' '.repeat(101));
  await assert.rejects(files.load('x'), LimitError);
});

test('what is no regular file is refused, and a FIFO is not waited for', async (t) => {
  const directory = await tempDirectory(t);
  const files = await createKeptFiles(directory, 100);
  execFileSync('mkfifo', [join(directory, 'fifo')]);
  await mkdir(join(directory, 'directory'));
  for (const name of ['fifo', 'directory']) await assert.rejects(files.load(name), /is not a regular file/);
});

test('a directory that others may write to is refused', async (t) => {
  const directory = await tempDirectory(t);
  for (const mode of [0o770, 0o702]) {
    await chmod(directory, mode);
    await assert.rejects(createKeptFiles(directory, 100), (error) => {
      return error instanceof AppError && /others may write to/.test(error.message);
    });
  }
  await chmod(directory, 0o755);
  await createKeptFiles(directory, 100);
});

const isRoot = userInfo().uid === 0;

test('a directory of another user is refused', {
  skip: !isRoot && 'only root can give one away',
}, async (t) => {
  const directory = await tempDirectory(t);
  await chown(directory, 65_534, 65_534);
  await assert.rejects(createKeptFiles(directory, 100), /owned by uid 0/);
});

test('what is no directory is told at once, and nothing is left behind where it works', async (t) => {
  const directory = await tempDirectory(t);
  await writeFile(join(directory, 'file'), '');
  await assert.rejects(createKeptFiles(join(directory, 'file'), 100));
  await createKeptFiles(join(directory, 'kept'), 100);
  assert.deepEqual(await readdir(join(directory, 'kept')), []);
});
