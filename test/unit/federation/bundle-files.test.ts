import assert from 'node:assert/strict';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createBundleFiles } from '../../../src/federation/bundle-files.ts';
import { LimitError, MalformedError } from '../../../src/runtime/errors.ts';
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
  assert.equal(await files.load(partner), undefined);
});

test('whatever names trust domains have, their files are in the directory', async (t) => {
  const directory = join(await tempDirectory(t), 'bundles');
  const files = await createBundleFiles(directory);
  for (const name of ['..', '.', 'a_b-c.d']) await files.save(parseTrustDomain(name), name);
  assert.deepEqual((await readdir(directory)).sort(), ['...json', '..json', 'a_b-c.d.json']);
  assert.equal((await files.load(parseTrustDomain('..')))?.text, '..');
});

test('a file that is too large or not UTF-8 is refused', async (t) => {
  const directory = await tempDirectory(t);
  const files = await createBundleFiles(directory);
  await writeFile(join(directory, 'partner.example.json'), ' '.repeat(1024 * 1024 + 1));
  await assert.rejects(files.load(partner), LimitError);
  await writeFile(join(directory, 'partner.example.json'), Buffer.of(0xff));
  await assert.rejects(files.load(partner), MalformedError);
});
