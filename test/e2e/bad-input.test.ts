import assert from 'node:assert/strict';
import { copyFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { probeTls } from '../../src/stack/tls-probe.ts';
import { startEnvoy } from '../support/envoy.ts';
import { extAuthz, httpListener } from '../support/envoy-config.ts';
import { startFakeWorkloadApi } from '../support/fake-workload-api.ts';
import { http } from '../support/http.ts';
import { buildWasmBundle } from '../support/opa.ts';
import { freePort } from '../support/ports.ts';
import { tempDirectory, until } from '../support/process.ts';
import { runCommand, startSidecar, writeConfig } from '../support/sidecar.ts';
import {
  allowed,
  clientSide,
  combined,
  devIdentity,
  entrypoint,
  policy,
  server,
  trustDomain,
} from './world.ts';

/** A whole config that would run. */
async function goodConfig(t: TestContext): Promise<Record<string, unknown>> {
  return {
    identity: devIdentity(),
    listen: `unix://${join(await tempDirectory(t), 'svidecar.sock')}`,
    admin: { listen: `127.0.0.1:${await freePort()}` },
  };
}

test('an unknown key and a bad value are reported together, with their key paths, and exit 64', async (t) => {
  const file = await writeConfig(t, {
    ...(await goodConfig(t)),
    sds: { enabld: true },
    policy: { timeout: 'soon' },
  });
  for (const command of ['run', 'validate']) {
    const { code, output } = await runCommand(t, command, '--config', file);
    assert.equal(code, 64, output);
    assert.match(output, /sds\.enabld/);
    assert.match(output, /policy\.timeout/);
  }
});

test('a config file that is missing or no YAML is named, and exit 64', async (t) => {
  const directory = await tempDirectory(t);
  const missing = await runCommand(t, 'run', '--config', join(directory, 'none.yaml'));
  assert.equal(missing.code, 64, missing.output);
  assert.match(missing.output, /none\.yaml/);
  const file = join(directory, 'broken.yaml');
  await writeFile(file, 'listen: [unix:///a\n  b: }');
  assert.equal((await runCommand(t, 'run', '--config', file)).code, 64);
});

test('an unknown flag and an unknown command exit 64', async (t) => {
  assert.equal((await runCommand(t, 'run', '--confg', 'x.yaml')).code, 64);
  assert.equal((await runCommand(t, 'walk')).code, 64);
});

test('a socket that another sidecar serves is left alone: the second one ends with its path, and the first goes on', async (t) => {
  const first = await startSidecar(t, { config: { identity: devIdentity() } });
  const file = await writeConfig(t, {
    ...(await goodConfig(t)),
    listen: `unix://${first.socket}`,
  });
  const { code, output } = await runCommand(t, 'run', '--config', file);
  assert.equal(code, 1, output);
  assert.ok(output.includes(first.socket), output);

  const port = await freePort();
  const tls = { certificate: 'default', bundle: 'ROOTCA' };
  const config = combined(first.socket, {
    listeners: [httpListener({ name: 'a', port, tls })],
    clusters: [],
  });
  await startEnvoy(t, { config });
  assert.equal((await probeTls({ port })).uri, server);
});

test('an admin port that is taken ends the program with the address', async (t) => {
  const taken = createServer();
  const port = await freePort();
  await new Promise<void>((resolve) => taken.listen(port, '127.0.0.1', resolve));
  t.after(() => taken.close());
  const file = await writeConfig(t, { ...(await goodConfig(t)), admin: { listen: `127.0.0.1:${port}` } });
  const { code, output } = await runCommand(t, 'run', '--config', file);
  assert.equal(code, 1, output);
  assert.match(output, new RegExp(`127\\.0\\.0\\.1 port ${port}: the port is taken`));
});

test('a Workload API that is not there is waited for: not ready with the socket named, live, and ready once it comes', async (t) => {
  const socket = join(await tempDirectory(t), 'workload.sock');
  const sidecar = await startSidecar(t, {
    config: {
      identity: { source: 'workload_api', workload_api: { address: `unix://${socket}` } },
      ext_authz: { enabled: false },
    },
    waitForReady: false,
  });
  const { status, body } = await until('the reason why it is not ready', async () => {
    const answer = await sidecar.admin('/ready');
    return answer.body.includes(socket) ? answer : undefined;
  });
  assert.equal(status, 503, body);
  assert.equal((await sidecar.admin('/live')).status, 200);

  await startSidecar(t, {
    name: 'issuer',
    config: {
      identity: devIdentity({ serve_workload_api: `unix://${socket}` }),
      ext_authz: { enabled: false },
    },
  });
  await sidecar.waitForReady();
});

test('an SVID of another trust domain than asserted is not used, and /ready says which was expected', async (t) => {
  const socket = join(await tempDirectory(t), 'workload.sock');
  await startSidecar(t, {
    name: 'issuer',
    config: {
      identity: devIdentity({ serve_workload_api: `unix://${socket}` }),
      ext_authz: { enabled: false },
    },
  });
  const sidecar = await startSidecar(t, {
    config: {
      identity: { source: 'workload_api', workload_api: { address: `unix://${socket}` } },
      trust_domain: 'other.test',
      ext_authz: { enabled: false },
    },
    waitForReady: false,
  });
  const { status } = await until('the mismatch', async () => {
    const answer = await sidecar.admin('/ready');
    return answer.body.includes(`trust domain mismatch: expected other.test, got ${trustDomain}`)
      ? answer
      : undefined;
  });
  assert.equal(status, 503);
});

test('a workload without an identity is told so by /ready, and the program stays live', async (t) => {
  const directory = await tempDirectory(t);
  const fake = await startFakeWorkloadApi(
    { path: join(directory, 'workload.sock') },
    {
      FetchX509SVID: (call) => call.fail('PERMISSION_DENIED', 'no identity issued'),
      FetchJWTBundles: (call) => call.fail('PERMISSION_DENIED', 'no identity issued'),
    },
  );
  t.after(() => fake.stop());
  const sidecar = await startSidecar(t, {
    config: {
      identity: { source: 'workload_api', workload_api: { address: fake.address } },
      ext_authz: { enabled: false },
    },
    waitForReady: false,
  });
  const { status } = await until('the reason why it is not ready', async () => {
    const answer = await sidecar.admin('/ready');
    return answer.body.includes('no identity issued') ? answer : undefined;
  });
  assert.equal(status, 503);
  assert.equal((await sidecar.admin('/live')).status, 200);
});

test('a policy bundle that breaks while running is reported and the last good one stays; a mended one is taken', async (t) => {
  const directory = await tempDirectory(t);
  const [file, other] = [join(directory, 'bundle.tar.gz'), join(directory, 'other.tar.gz')];
  const entrypoints = [entrypoint];
  await buildWasmBundle(t, { files: { 'policy.rego': policy }, entrypoints, into: file });
  const denyAll = 'package envoy.authz\n\nallow := {"allowed": false, "reason": "closed today"}\n';
  await buildWasmBundle(t, { files: { 'policy.rego': denyAll }, entrypoints, into: other });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: entrypoint },
      policy: { engine: 'wasm', bundle: { file }, timeout: '2s' },
    },
  });
  const [entry, port] = [await freePort(), await freePort()];
  const tls = { certificate: server, bundle: 'ROOTCA' };
  const config = combined(sidecar.socket, clientSide('client', allowed, entry, port), {
    listeners: [httpListener({ name: 'server', port, tls, filters: [extAuthz()] })],
    clusters: [],
  });
  await startEnvoy(t, { config });
  const status = async (): Promise<number> => (await http({ port: entry, path: '/' })).status;
  assert.equal(await status(), 200);

  const mark = sidecar.process().lineCount();
  await writeFile(file, 'this is no bundle');
  await sidecar.process().waitForLine(/bundle\.tar\.gz/, { since: mark });
  assert.equal(await status(), 200);

  await copyFile(other, file);
  await until('the new policy to decide', async () => ((await status()) === 403 ? true : undefined));
  await sidecar.process().waitForLine(/closed today/);
});
