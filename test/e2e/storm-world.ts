import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { sleep } from '../../src/runtime/abort.ts';
import { encodeCertificatesPem } from '../../src/spiffe/certificate.ts';
import { createTestAuthority } from '../support/ca.ts';
import type { Probe } from '../support/probe.ts';
import { tempDirectory } from '../support/process.ts';
import { type Sidecar, startSidecar } from '../support/sidecar.ts';
import { startPublisher } from './published.ts';
import * as oracle from './storm-oracle.ts';
import { createTimeline, type Timeline } from './storm-timeline.ts';
import { server, trustDomain } from './world.ts';

const never = new AbortController().signal;
const hourMs = 3_600_000;

/** An engine whose policy the test replaces. */
export type PublishedPolicy = Readonly<{
  /** Of the sections `policy` and `ext_authz`. */
  config: Readonly<Record<string, unknown>>;
  extAuthz: Readonly<Record<string, unknown>>;
  /** Resolves when the sidecar decides by it, and by nothing older. */
  publish(state: oracle.PolicyVersion, sidecar: Sidecar): Promise<void>;
}>;

/** Everything that changes while Checks are under way. */
export type Weather = Readonly<{
  policy: Timeline<oracle.PolicyVersion>;
  trust: Timeline<oracle.Trust>;
  denied: Timeline<ReadonlySet<string>>;
  /** Changes all of it, over and over, until the signal fires. */
  turn(signal: AbortSignal): Promise<void>;
}>;

/** A sidecar whose world the test turns by hand. `url` is where its decisions are recorded. */
export async function startWorld(
  t: TestContext,
  { engine, probe, url }: Readonly<{ engine: PublishedPolicy; probe: Probe; url: string }>,
) {
  const deniedFile = join(await tempDirectory(t), 'denied');
  const publishDenied = (denied: ReadonlySet<string>): Promise<void> =>
    replaceFile(deniedFile, ['# on the list', 'no pattern at all', ...denied].join('\n'));

  const times = { notBefore: Date.now() - hourMs, notAfter: Date.now() + hourMs };
  const [first, second] = await Promise.all([
    createTestAuthority(trustDomain, times),
    createTestAuthority(trustDomain, { ...times, subject: 'CN=the second' }),
  ]);
  const svid = async (authority: typeof first, id: string) => {
    const { certificate, privateKey } = await authority.leaf({ uris: [id], ...times });
    return { ...(await authority.svid(id)), chain: [certificate] as const, privateKey };
  };
  const peers = await Promise.all(
    [...oracle.agents, oracle.revoked, oracle.turned].map((id) =>
      svid(id === oracle.turned ? second : first, id),
    ),
  );
  const certificates = new Map(
    peers.map(({ spiffeId, chain }) => [
      spiffeId as string,
      encodeURIComponent(encodeCertificatesPem(chain).toString()),
    ]),
  );
  const gone = peers.filter(({ spiffeId }) => spiffeId === oracle.revoked).map(({ chain }) => chain[0]);
  const dates = { thisUpdate: Date.now() - hourMs, nextUpdate: Date.now() + hourMs };
  const [empty, revoking] = await Promise.all([first.crl([], dates), first.crl(gone, dates)]);
  const publication = async (trust: oracle.Trust) => ({
    svids: [await svid(first, server)],
    authorities: [first.certificate, ...(trust.second ? [second.certificate] : [])],
    crls: [trust.revoking ? revoking : empty],
  });

  const policy = createTimeline(oracle.policyVersion(0));
  const trust = createTimeline<oracle.Trust>({ second: true, revoking: false });
  const denied = createTimeline<ReadonlySet<string>>(new Set());
  await publishDenied(new Set());
  const publisher = await startPublisher(t, await publication({ second: true, revoking: false }));
  const sidecar = await startSidecar(t, {
    ...probe.with,
    config: {
      identity: { source: 'workload_api', workload_api: { address: publisher.address } },
      ext_authz: {
        ...oracle.extAuthz,
        ...engine.extAuthz,
        peer: { denied_identities_file: deniedFile },
      },
      policy: { ...engine.config, timeout: '20s' },
      decision_log: { console: false, service: { url } },
    },
  });
  const said = async (line: string, value: number, signal: AbortSignal): Promise<void> => {
    while ((await sidecar.metric(line)) < value) await sleep(100, signal);
  };

  async function turnPolicy(signal: AbortSignal): Promise<void> {
    const state = oracle.policyVersion(policy.states.length);
    const index = policy.begin(state);
    await engine.publish(state, sidecar);
    policy.settle(index);
    await sleep(300, signal);
  }
  async function turnTrust(signal: AbortSignal): Promise<void> {
    const count = trust.states.length;
    const state = { second: count % 2 === 0, revoking: count % 3 === 1 };
    const next = await publication(state);
    const index = trust.begin(state);
    publisher.publish(next);
    await said(`svidecar_svid_rotations_total{spiffe_id="${server}"}`, index, signal);
    trust.settle(index);
    await sleep(1_000, signal);
  }
  async function turnDenied(signal: AbortSignal): Promise<void> {
    const one = [oracle.agents[denied.states.length % 4] ?? '', oracle.plain];
    const index = denied.begin(new Set(one));
    await publishDenied(new Set(one));
    await said('svidecar_denied_identities', one.length, signal);
    denied.settle(index);
    await sleep(100, signal);
    // Let go of only after a second, less what two clocks may differ by.
    const later = denied.begin(new Set(), performance.now() + 950);
    await publishDenied(new Set());
    while ((await sidecar.metric('svidecar_denied_identities')) > 0) await sleep(100, signal);
    denied.settle(later);
  }
  const again = async (turn: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> => {
    // One that is under way ends first, so that the next round begins with what is known.
    while (!signal.aborted) await turn(never);
  };
  const weather: Weather = {
    policy,
    trust,
    denied,
    async turn(signal) {
      // Trust and rules take turns: each empties the cache, and decisions have to be held when the policy changes.
      const turnOthers = async (until: AbortSignal): Promise<void> => {
        await turnTrust(until);
        await turnDenied(until);
        await sleep(1_000, until);
      };
      await Promise.all([again(turnPolicy, signal), again(turnOthers, signal)]);
    },
  };
  return { sidecar, weather, certificates };
}

export async function replaceFile(path: string, content: string | Buffer): Promise<void> {
  await writeFile(`${path}.new`, content);
  await rename(`${path}.new`, path);
}
