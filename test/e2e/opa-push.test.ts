import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startBundleServer } from '../support/bundle-server.ts';
import { packBundle } from '../support/bundles.ts';
import { type Opa, startOpa } from '../support/opa.ts';
import { tempDirectory, until } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { connectCaller, http } from './caller.ts';
import { allowed, denied, devIdentity, entrypoint } from './world.ts';

/** Lets pass who is not banned: without its data it lets everybody pass. */
const blocklist = (version: number): string => `package envoy.authz

default allow := {"allowed": true, "reason": "version ${version}"}

allow := {"allowed": false, "reason": "banned"} if {
	input.spiffe.source.id in data.acl.banned
}
`;

type World = Readonly<{
  opa: Opa;
  sidecar: Sidecar;
  check: (principal: string) => Promise<string>;
  write: (name: 'acl.json' | 'authz.rego', content: string) => Promise<void>;
}>;

/** A sidecar that gives policy and data to a real OPA, which has nothing else but `files`. */
async function setUp(
  t: TestContext,
  contents: Readonly<{ 'acl.json': string; 'authz.rego'?: string }>,
  {
    disk = {},
    waitForReady = true,
    args = [],
  }: { disk?: Readonly<Record<string, string>>; waitForReady?: boolean; args?: readonly string[] } = {},
): Promise<World> {
  const directory = await tempDirectory(t);
  const write: World['write'] = async (name, content) => {
    await writeFile(join(directory, 'new'), content);
    await rename(join(directory, 'new'), join(directory, name));
  };
  const { 'acl.json': acl, 'authz.rego': rego } = contents;
  await write('acl.json', acl);
  if (rego !== undefined) await write('authz.rego', rego);
  const opa = await startOpa(t, { over: 'tcp', files: disk, args });
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity(),
      ext_authz: { path: entrypoint },
      policy: {
        timeout: '2s',
        opa: {
          url: opa.url,
          push: [
            { data: 'acl', file: join(directory, 'acl.json') },
            ...(rego === undefined
              ? []
              : [{ policy: 'authz/main.rego', file: join(directory, 'authz.rego') }]),
          ],
        },
      },
      decision_log: { console: true },
    },
    waitForReady,
  });
  const caller = connectCaller(t, sidecar);
  const check = async (principal: string): Promise<string> => {
    const { http: status, reason } = await caller.check({ source: { principal }, request: { http } });
    return status === 'OK' ? 'OK' : String(reason);
  };
  return { opa, sidecar, check, write };
}

const banned = JSON.stringify({ banned: [denied] });

test('a real OPA is given policy and data before the sidecar is ready, and what changes', async (t) => {
  const { sidecar, check, write } = await setUp(t, { 'acl.json': banned, 'authz.rego': blocklist(1) });
  assert.equal(await check(allowed), 'OK');
  assert.equal(await check(denied), 'policy_denied');
  await write('acl.json', JSON.stringify({ banned: [allowed] }));
  await until('the new data', async () => ((await check(allowed)) === 'policy_denied' ? true : undefined));
  assert.equal(await check(denied), 'OK');

  await write('authz.rego', 'package envoy.authz\n\nallow if {\n\tnothing_of_that_name(1)\n}\n');
  const line = await sidecar.process().waitForLine(/cannot be pushed to OPA/);
  assert.match(
    line,
    /authz\.rego \(policy authz\/main\.rego\).*authz\/main\.rego:4:2: .*nothing_of_that_name/,
  );
  assert.equal((await sidecar.admin('/ready')).status, 200);
  assert.equal(await check(allowed), 'policy_denied');
  assert.match((await sidecar.admin('/status')).body, /nothing_of_that_name/);

  await write('authz.rego', blocklist(2));
  // One that was asked for during the push names no revision.
  const record = await until('a record of version 2 that names it', async () => {
    const mark = sidecar.process().lineCount();
    await check(denied);
    return sidecar
      .process()
      .linesSince(mark)
      .find((line) => /"push":.*"reason":"version 2"/.test(line));
  });
  const { bundles } = JSON.parse(record) as { bundles: { push: { revision: string } } };
  const { policy: state } = JSON.parse((await sidecar.admin('/status')).body) as {
    policy: { bundles: readonly [{ name: string; revision: string }] };
  };
  assert.equal(bundles.push.revision, state.bundles[0].revision);
});

test('while OPA does not compile the policy every Check is a 503, and /ready says file and line', async (t) => {
  const world = await setUp(
    t,
    { 'acl.json': banned, 'authz.rego': 'package x\n\ny := ' },
    { waitForReady: false },
  );
  const { sidecar, check, write } = world;
  await sidecar.process().waitForLine(/cannot be pushed to OPA/);
  assert.equal(await check(allowed), 'not_ready');
  const { status, body } = await sidecar.admin('/ready');
  assert.equal(status, 503);
  assert.match(body, /authz\/main\.rego:3:/);
  await write('authz.rego', blocklist(1));
  await sidecar.waitForReady();
  assert.equal(await check(denied), 'policy_denied');
});

test('an OPA that is started anew without the data never lets a banned peer pass', async (t) => {
  // The policy is on its own disk, and without the data it lets everybody pass.
  const disk = { 'policy.rego': blocklist(1) };
  const { opa, sidecar, check } = await setUp(t, { 'acl.json': banned }, { disk });
  let running = opa;
  for (let round = 0; round < 3; round++) {
    const stop = new AbortController();
    const seen = new Map<string, number>();
    const flow = Array.from({ length: 4 }, async () => {
      while (!stop.signal.aborted) {
        const answer = await check(denied);
        seen.set(answer, (seen.get(answer) ?? 0) + 1);
      }
    });
    await running.process.crash();
    running = await opa.restart();
    await until('a loss', async () =>
      (await sidecar.metric('svidecar_policy_push_losses_total')) > round ? true : undefined,
    );
    await sidecar.waitForReady();
    const before = seen.get('policy_denied') ?? 0;
    await until('denials by policy', () =>
      Promise.resolve((seen.get('policy_denied') ?? 0) > before || undefined),
    );
    stop.abort();
    await Promise.all(flow);
    assert.equal(seen.get('OK'), undefined, JSON.stringify([...seen]));
    assert.equal(await check(allowed), 'OK');
  }
});

test("a bundle of OPA's own that takes the place of a pushed list leads to no decision without the list", async (t) => {
  const service = await startBundleServer(t);
  const args = [
    `services.s.url=${service.origin}`,
    'bundles.b.service=s',
    `bundles.b.resource=${service.path.slice(1)}`,
    'bundles.b.polling.min_delay_seconds=1',
    'bundles.b.polling.max_delay_seconds=1',
  ].flatMap((setting) => ['--set', setting]);
  const { sidecar, check } = await setUp(t, { 'acl.json': banned, 'authz.rego': blocklist(1) }, { args });
  assert.equal(await check(denied), 'policy_denied');
  const publish = (revision: string, roots: readonly string[]): void => {
    const manifest = Buffer.from(JSON.stringify({ revision, roots }));
    service.publish(packBundle(new Map([['/.manifest', manifest]])), revision);
  };

  publish('1', ['elsewhere']);
  await until('the bundle to be in force', async () => {
    const mark = sidecar.process().lineCount();
    assert.equal(await check(denied), 'policy_denied');
    return (
      sidecar
        .process()
        .linesSince(mark)
        .some((line) => line.includes('"b":{"revision":"1"}')) || undefined
    );
  });

  publish('2', ['acl']);
  await until('refusals', async () => ((await check(denied)) === 'not_ready' ? true : undefined));
  await until('the reason', async () =>
    /owned by bundle/.test((await sidecar.admin('/ready')).body) ? true : undefined,
  );
  assert.equal(await check(denied), 'not_ready');

  publish('3', ['elsewhere']);
  await sidecar.waitForReady();
  assert.equal(await check(denied), 'policy_denied');
});
