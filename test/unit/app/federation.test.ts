import assert from 'node:assert/strict';
import { chmod, mkdir, rename, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createFederation } from '../../../src/app/federation.ts';
import { identityRulesOf } from '../../../src/app/identity-rules.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { judgePeer } from '../../../src/extauthz/identity-rules.ts';
import { sleep } from '../../../src/runtime/abort.ts';
import { AppError, ConfigError } from '../../../src/runtime/errors.ts';
import { createLatest } from '../../../src/runtime/latest.ts';
import { type Logger, silentLogger } from '../../../src/runtime/log.ts';
import { runTasks } from '../../../src/runtime/tasks.ts';
import { createJwtSigner } from '../../../src/spiffe/authority.ts';
import { formatBundleDocument, parseBundleDocument } from '../../../src/spiffe/bundle-document.ts';
import { parseSpiffeId, parseTrustDomain, trustDomainOf } from '../../../src/spiffe/spiffe-id.ts';
import { createTrustStore } from '../../../src/trust/store.ts';
import {
  createTestAuthority,
  jwtBundles,
  type TestAuthority,
  testNow,
  x509Bundle,
  x509Bundles,
} from '../../support/ca.ts';
import { startHttpsServer } from '../../support/https-server.ts';
import { freePort } from '../../support/ports.ts';
import { tempDirectory, until } from '../../support/process.ts';

const own = parseTrustDomain('own.example');
const partner = parseTrustDomain('partner.example');
const endpointId = 'spiffe://partner.example/bundles';
const root = await createTestAuthority(partner);
const other = await createTestAuthority(partner);
const ownRoot = await createTestAuthority(own);
const { authority: jwtKey } = await createJwtSigner();

function documentOf(...authorities: readonly TestAuthority[]): string {
  const jwt = { trustDomain: partner, authorities: [] };
  return formatBundleDocument({
    x509: x509Bundle(partner, authorities),
    jwt,
    sequence: 4n,
    refreshHintS: 60,
  });
}

function configOf(federation: object): Config {
  return loadConfig({ text: JSON.stringify({ trust_domain: own, federation }), env: {} }).config;
}

function entry(url: string, bootstrap: string, more: object = {}): object {
  return {
    name: partner,
    bundle_endpoint: url,
    profile: 'https_spiffe',
    endpoint_spiffe_id: endpointId,
    bootstrap_bundle: bootstrap,
    ...more,
  };
}

/** Federation as `run` has it, over a store with an identity; its waits are short. */
async function start(t: TestContext, config: Config) {
  const store = createTrustStore({
    now: () => testNow,
    log: silentLogger,
    meter: { applied() {}, rotated() {} },
  });
  const svid = await ownRoot.svid('spiffe://own.example/sidecar');
  store.apply({ kind: 'x509', context: { svids: [svid], bundles: x509Bundles(x509Bundle(own, [ownRoot])) } });
  const configs = createLatest(config);
  const errors: string[] = [];
  const log: Logger = { ...silentLogger, error: (fields) => errors.push(String(fields['error'])) };
  const federation = await createFederation({
    configs,
    source: { name: 'workload_api' },
    store,
    clock: {
      now: () => testNow,
      monotonicNow: () => 0,
      sleep: (ms, signal) => sleep(Math.min(ms, 10), signal),
      random: () => 0.5,
    },
    log,
    meter: { taken() {}, refused() {}, fetched() {}, removed() {}, served() {} },
  });
  const held = (): readonly string[] | undefined =>
    store
      .current()
      .bundles.get(partner)
      ?.authorities.map(({ fingerprint }) => fingerprint);
  const heldAtFirst = held();
  const stop = new AbortController();
  const running = runTasks(stop.signal, federation.tasks);
  t.after(async () => {
    stop.abort();
    await running;
  });
  return { store, configs, errors, federation, held, heldAtFirst };
}

async function startEndpoint(t: TestContext, body: string): Promise<string> {
  return (await startHttpsServer(t, await root.svid(endpointId), (_, response) => response.end(body))).url;
}

test('it says of every trust domain where its bundle comes from and how fresh it is', async (t) => {
  const bootstrap = join(await tempDirectory(t), 'partner.json');
  await writeFile(bootstrap, documentOf(root));
  const url = await startEndpoint(t, documentOf(root, other));
  const { federation, held } = await start(t, configOf({ trust_domains: [entry(url, bootstrap)] }));
  await until('the bundle of the endpoint', () => (held()?.length === 2 ? true : undefined));
  assert.deepEqual(federation.bundleInfo(partner), {
    source: 'endpoint',
    sequence: 4n,
    refreshHintS: 60,
    fetchedAt: testNow,
    lastError: undefined,
  });
  assert.equal(federation.bundleInfo(own)?.source, 'workload_api');
  assert.equal(federation.bundleInfo(parseTrustDomain('third.example')), undefined);
});

test('a file that an entry names takes effect when it is replaced, and a broken one changes nothing', async (t) => {
  const bootstrap = join(await tempDirectory(t), 'partner.json');
  const put = async (text: string): Promise<void> => {
    await writeFile(`${bootstrap}.new`, text);
    await rename(`${bootstrap}.new`, bootstrap);
  };
  // A bundle of a third domain vouches for the endpoint; it is not the right one yet.
  const hub = await createTestAuthority('hub.example');
  const hubDomain = parseTrustDomain('hub.example');
  const hubDocument = (authority: TestAuthority): string =>
    formatBundleDocument({
      x509: x509Bundle(hubDomain, [authority]),
      jwt: { trustDomain: hubDomain, authorities: [] },
    });
  await put(hubDocument(await createTestAuthority('hub.example')));
  const svid = await hub.svid('spiffe://hub.example/bundles');
  const { url } = await startHttpsServer(t, svid, (_, response) => response.end(documentOf(root)));
  const config = configOf({ trust_domains: [entry(url, bootstrap, { endpoint_spiffe_id: svid.spiffeId })] });
  const { federation, held, errors } = await start(t, config);
  await until('the refusal', () => federation.bundleInfo(partner)?.lastError);
  assert.equal(held(), undefined);
  await put('garbage');
  await until('the complaint', () => errors[0]);
  assert.match(errors[0] ?? '', /federation\.trust_domains\[0\]\.bootstrap_bundle: .*not JSON/);
  await put(hubDocument(hub));
  await until('the bundle', held);
  assert.equal(federation.bundleInfo(partner)?.lastError, undefined);
});

test('what is on disk is in force before anything else begins, so that running Envoys never lose a partner', async (t) => {
  const directory = await tempDirectory(t);
  const bootstrap = join(directory, 'bootstrap.json');
  const persistDir = join(directory, 'bundles');
  await mkdir(persistDir);
  await writeFile(bootstrap, documentOf(root));
  await writeFile(join(persistDir, 'partner.example.json'), documentOf(root, other));
  const entries = [entry('https://127.0.0.1:1', bootstrap)];
  const kept = await start(t, configOf({ persist_dir: persistDir, trust_domains: entries }));
  assert.equal(kept.heldAtFirst?.length, 2);
  const fresh = await start(t, configOf({ trust_domains: entries }));
  assert.equal(fresh.heldAtFirst?.length, 1);
  assert.equal(fresh.federation.bundleInfo(partner)?.source, 'bootstrap');
});

test('entries come and go with the configuration, and so does who may pass', async (t) => {
  const bootstrap = join(await tempDirectory(t), 'partner.json');
  await writeFile(bootstrap, documentOf(root));
  const url = await startEndpoint(t, documentOf(root));
  const { configs, held } = await start(t, configOf({}));
  const id = parseSpiffeId('spiffe://partner.example/agents/7');
  const judge = (): string | undefined =>
    judgePeer(
      identityRulesOf(configs.current(), []),
      { id, trustDomain: trustDomainOf(id) } as Parameters<typeof judgePeer>[1],
      own,
    )?.reasonCode;
  assert.equal(judge(), 'foreign_trust_domain');
  configs.set(configOf({ trust_domains: [entry(url, bootstrap)] }));
  await until('the partner', held);
  assert.equal(judge(), 'identity_not_allowed', 'without allowed identities nobody of it may pass');
  const allowed = { allowed_identities: ['spiffe://partner.example/agents/*'] };
  configs.set(configOf({ trust_domains: [entry(url, bootstrap, allowed)] }));
  assert.equal(judge(), undefined);
  configs.set(configOf({}));
  await until('the end', () => (held() === undefined ? true : undefined));
  assert.equal(judge(), 'foreign_trust_domain');
});

test('our own bundle is published once the JWT authorities have come', async (t) => {
  const port = await freePort();
  const { store } = await start(t, configOf({ serve: { listen: `127.0.0.1:${port}` } }));
  const ask = (): Promise<Readonly<{ status: number | undefined; body: string }>> =>
    new Promise((resolve, reject) => {
      const asked = request(
        { host: '127.0.0.1', port, rejectUnauthorized: false, agent: false },
        (response) => {
          let body = '';
          response.on('data', (part: Buffer) => (body += part.toString()));
          response.on('end', () => resolve({ status: response.statusCode, body }));
        },
      );
      asked.on('error', reject);
      asked.end();
    });
  assert.equal((await until('the certificate', ask)).status, 503);
  store.apply({ kind: 'jwt_bundles', bundles: jwtBundles({ [own]: [jwtKey] }) });
  const { status, body } = await ask();
  assert.equal(status, 200);
  assert.equal(parseBundleDocument(body, own).jwt.authorities[0]?.keyId, jwtKey.keyId);
});

test('what cannot work is told at start: files of entries by their keys, and a directory that others may write to', async (t) => {
  const directory = await tempDirectory(t);
  const missing = configOf({ trust_domains: [entry('https://partner.example', join(directory, 'no.json'))] });
  await assert.rejects(start(t, missing), (error) => {
    assert.ok(error instanceof ConfigError);
    assert.match(error.message, /^federation\.trust_domains\[0\]\.bootstrap_bundle: there is no file/);
    return true;
  });
  const open = join(directory, 'open');
  await mkdir(open);
  await chmod(open, 0o777);
  await assert.rejects(start(t, configOf({ persist_dir: open })), (error) => {
    return error instanceof AppError && /others may write to/.test(error.message);
  });
});
