import assert from 'node:assert/strict';
import { chmod, chown, mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createBundleFiles } from '../../../src/federation/bundle-files.ts';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { tempDirectory } from '../../support/process.ts';

const partner = parseTrustDomain('partner.example');

test('what is saved is loaded as it was, and gone once removed', async (t) => {
  const files = await createBundleFiles(join(await tempDirectory(t), 'a/b'));
  assert.equal(await files.load(partner), undefined);
  await files.save(partner, '{"keys":[]}');
  await files.save(partner, '{"keys": []}');
  assert.equal((await files.load(partner))?.text, '{"keys": []}');
  await files.remove(partner);
  await files.remove(partner);
  assert.equal(await files.load(partner), undefined);
});

test('files are 0600 in a directory 0700, whatever names trust domains have', async (t) => {
  const directory = join(await tempDirectory(t), 'bundles');
  const files = await createBundleFiles(directory);
  for (const name of ['..', '.', 'a_b-c.d']) await files.save(parseTrustDomain(name), name);
  assert.deepEqual((await readdir(directory)).sort(), ['...json', '..json', 'a_b-c.d.json']);
  assert.equal((await stat(join(directory, '...json'))).mode & 0o777, 0o600);
  assert.equal((await stat(directory)).mode & 0o777, 0o700);
  assert.equal((await files.load(parseTrustDomain('..')))?.text, '..');
});

test('a save that fails leaves the old file and nothing half-written', async (t) => {
  const directory = await tempDirectory(t);
  const files = await createBundleFiles(directory);
  await mkdir(join(directory, 'partner.example.json'));
  await assert.rejects(files.save(partner, 'x'));
  assert.deepEqual(await readdir(directory), ['partner.example.json']);
});

test('a file that is too large or not UTF-8 is refused', async (t) => {
  const directory = await tempDirectory(t);
  const files = await createBundleFiles(directory);
  await writeFile(join(directory, 'partner.example.json'), ' '.repeat(1024 * 1024 + 1));
  await assert.rejects(files.load(partner), LimitError);
  await writeFile(join(directory, 'partner.example.json'), Buffer.of(0xff));
  await assert.rejects(files.load(partner), MalformedError);
});

test('a directory that others may write to is refused', async (t) => {
  const directory = await tempDirectory(t);
  for (const mode of [0o770, 0o702]) {
    await chmod(directory, mode);
    await assert.rejects(createBundleFiles(directory), (error) => {
      return error instanceof AppError && /others may write to/.test(error.message);
    });
  }
  await chmod(directory, 0o755);
  await createBundleFiles(directory);
});

const isRoot = userInfo().uid === 0;

test('a directory of another user is refused', {
  skip: !isRoot && 'only root can give one away',
}, async (t) => {
  const directory = await tempDirectory(t);
  await chown(directory, 65_534, 65_534);
  await assert.rejects(createBundleFiles(directory), /owned by uid 0/);
});

test('what is no directory is told at once, and nothing is left behind where it works', async (t) => {
  const directory = await tempDirectory(t);
  await writeFile(join(directory, 'file'), '');
  await assert.rejects(createBundleFiles(join(directory, 'file')));
  await createBundleFiles(join(directory, 'bundles'));
  assert.deepEqual(await readdir(join(directory, 'bundles')), []);
});
