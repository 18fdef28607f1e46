import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createFileBundleSource } from '../../src/policy/bundle/file-bundle-source.ts';
import { createWasmEngine } from '../../src/policy/wasm/opa-wasm.ts';
import { sleep } from '../../src/runtime/abort.ts';
import { silentLogger } from '../../src/runtime/log.ts';
import { opaPath } from '../support/binaries.ts';
import { packBundle, unpackBundle } from '../support/bundles.ts';
import { runProcess, tempDirectory, until } from '../support/process.ts';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const data = '{"users":["é<&>"],"n":1.0,"big":12345678901234567890,"a":{"z":null,"b":"\\u2028\\t"}}';

const engineOptions = {
  timeoutMs: 5_000,
  now: () => performance.now(),
  epochNow: Date.now,
  sleep,
  random: Math.random,
  log: silentLogger,
  meter: { bundleLoaded() {}, workerReplaced() {} },
};

async function signedBundle(t: TestContext, algorithm: string, key: KeyObject): Promise<Buffer> {
  const directory = await tempDirectory(t);
  const source = join(directory, 'source');
  await mkdir(source);
  await writeFile(join(source, 'lab.rego'), 'package lab\n\nallow if input.user in data.users\n');
  await writeFile(join(source, 'data.json'), data);
  const keyFile = join(directory, 'key.pem');
  await writeFile(keyFile, key.export({ format: 'pem', type: 'pkcs8' }));
  const output = join(directory, 'bundle.tar.gz');
  const sign = ['--signing-alg', algorithm, '--signing-key', keyFile, '--bundle', '.'];
  const built = await runProcess(t, {
    name: 'opa build',
    command: await opaPath(),
    args: ['build', '-t', 'wasm', '-e', 'lab/allow', ...sign, '-o', output],
    cwd: source,
  });
  assert.equal(built.code, 0, built.output);
  return readFile(output);
}

/** Undefined when the bundle was activated, else why it was not. */
async function activate(t: TestContext, bundle: Buffer, key?: KeyObject): Promise<string | undefined> {
  const directory = await tempDirectory(t);
  const file = join(directory, 'bundle.tar.gz');
  const verificationKey = key && join(directory, 'pub.pem');
  await writeFile(file, bundle);
  if (verificationKey) await writeFile(verificationKey, key.export({ format: 'pem', type: 'spki' }));
  const engine = createWasmEngine({
    ...engineOptions,
    sources: [createFileBundleSource({ name: 'policy', file, verificationKey, sleep })],
  });
  t.after(() => engine.close());
  try {
    await engine.load(new AbortController().signal);
    assert.equal(engine.ready(), true);
    return undefined;
  } catch (error) {
    assert.equal(engine.ready(), false);
    return (error as Error).message;
  }
}

test('bundles that opa build signs are activated by their key, for each algorithm', async (t) => {
  for (const algorithm of ['RS256', 'PS384']) {
    const bundle = await signedBundle(t, algorithm, rsa.privateKey);
    assert.equal(await activate(t, bundle, rsa.publicKey), undefined, algorithm);
  }
  const bundle = await signedBundle(t, 'ES256', ec.privateKey);
  assert.equal(await activate(t, bundle, createPublicKey(ec.privateKey)), undefined);
});

test('a key that comes after its bundle activates it, and a weak key activates nothing', async (t) => {
  const bundle = await signedBundle(t, 'RS256', rsa.privateKey);
  const directory = await tempDirectory(t);
  const [file, verificationKey] = [join(directory, 'bundle.tar.gz'), join(directory, 'pub.pem')];
  await writeFile(file, bundle);
  const stop = new AbortController();
  const engine = createWasmEngine({
    ...engineOptions,
    sources: [createFileBundleSource({ name: 'policy', file, verificationKey, sleep })],
  });
  const running = engine.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await running;
  });
  const problem = (pattern: RegExp) =>
    until(String(pattern), () => Promise.resolve(pattern.test(engine.problem() ?? '') ? true : undefined));
  await problem(/pub\.pem does not exist/);
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 });
  await writeFile(verificationKey, weak.publicKey.export({ format: 'pem', type: 'spki' }));
  await problem(/RSA key of less than 2048 bits/);
  assert.equal(engine.ready(), false);
  await writeFile(verificationKey, rsa.publicKey.export({ format: 'pem', type: 'spki' }));
  await until('the policy', () => Promise.resolve(engine.ready() ? true : undefined));
});

test('a signed bundle that is not as it was signed fails closed', async (t) => {
  const bundle = await signedBundle(t, 'ES256', ec.privateKey);
  const changed = (change: (files: Map<string, Buffer>) => void): Buffer => {
    const files = unpackBundle(bundle);
    change(files);
    return packBundle(files);
  };
  assert.ok(unpackBundle(bundle).has('lab.rego'));
  const other = generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).publicKey;
  const table: readonly (readonly [Buffer, KeyObject | undefined, RegExp])[] = [
    [bundle, undefined, /bundle is signed; set verification_key/],
    [bundle, other, /not by verification_key/],
    [bundle, rsa.publicKey, /not by verification_key/],
    [changed((files) => files.delete('.signatures.json')), ec.publicKey, /has no \.signatures\.json/],
    [changed((files) => files.delete('lab.rego')), ec.publicKey, /signed file "lab\.rego" is not in/],
    [
      changed((files) => files.set('more.rego', Buffer.from('x'))),
      ec.publicKey,
      /"more\.rego" is not signed/,
    ],
    [
      changed((files) => files.set('data.json', Buffer.from('{}'))),
      ec.publicKey,
      /"data\.json" is not the one/,
    ],
    [
      changed((files) => files.set('policy.wasm', Buffer.from('x'))),
      ec.publicKey,
      /"policy\.wasm" is not the/,
    ],
  ];
  for (const [file, key, why] of table) assert.match((await activate(t, file, key)) ?? 'activated', why);
});

test('white space and the order of keys are free in a signed JSON file', async (t) => {
  const files = unpackBundle(await signedBundle(t, 'ES256', ec.privateKey));
  files.set('data.json', Buffer.from(data.replaceAll(',', ' ,\n ')));
  assert.equal(await activate(t, packBundle(files), ec.publicKey), undefined);
});
