import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { buildSet, type OutputSpec } from '../../../src/outputs/output-set.ts';
import { createOutputWriter } from '../../../src/outputs/output-writer.ts';
import { writeSet } from '../../../src/outputs/write-set.ts';
import { createLatest, type Latest } from '../../../src/runtime/latest.ts';
import { silentLogger } from '../../../src/runtime/log.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../../src/spiffe/certificate.ts';
import type { JwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { parseSpiffeId, type SpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import type { X509Svid } from '../../../src/spiffe/x509-svid.ts';
import { defaultSvid, emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';
import { testNow } from '../../support/ca.ts';
import { unsignedJwtSvid } from '../../support/jwt.ts';
import { createManualClock, settled } from '../../support/manual-clock.ts';
import { until } from '../../support/process.ts';
import { newSvid, outputDirectory, own, read, snapshotOf, specOf, withPartner } from './sets.ts';

async function start(t: TestContext, more: (directory: string) => Partial<OutputSpec> = () => ({})) {
  const directory = await outputDirectory(t);
  const spec = specOf(directory, more(directory));
  const clock = createManualClock(testNow);
  const snapshots = createLatest<TrustSnapshot>(emptySnapshot);
  const tokens = new Map<string, Latest<JwtSvid | undefined>>();
  const tokenOf = (spiffeId: SpiffeId, audience: string): Latest<JwtSvid | undefined> => {
    const key = `${spiffeId} ${audience}`;
    const held = tokens.get(key) ?? createLatest<JwtSvid | undefined>(undefined);
    tokens.set(key, held);
    return held;
  };
  const counts = { written: 0, failed: 0, withdrawn: 0, sent: 0, notSent: 0 };
  const killed: string[] = [];
  const logged: string[] = [];
  const note = (fields: object, message: string): void => {
    logged.push(`${message} ${JSON.stringify(fields)}`);
  };
  const writer = createOutputWriter({
    spec,
    snapshots,
    defaultSvid: (snapshot) => defaultSvid(snapshot, undefined),
    tokens: {
      async *watch({ audience, spiffeId }, signal) {
        yield* tokenOf(spiffeId, audience).changes(signal);
      },
    },
    kill: (pid, name) => killed.push(`${pid} ${name}`),
    now: clock.now,
    sleep: clock.sleep,
    random: () => 1,
    log: { ...silentLogger, info: note, warn: note, error: note },
    meter: {
      set: (outcome) => (counts[outcome] += 1),
      signalled: (outcome) => (counts[outcome === 'sent' ? 'sent' : 'notSent'] += 1),
    },
  });
  const stop = new AbortController();
  const running = writer.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await running;
  });
  /** Lets time pass, and files be written, until it is so. */
  const reach = (what: string, so: () => boolean): Promise<true> =>
    until(what, async () => {
      await clock.advance(500);
      return so() ? true : undefined;
    });
  const hold = (svid: X509Svid | undefined, rest: Partial<TrustSnapshot> = {}): void =>
    snapshots.set(snapshotOf(svid, rest));
  return { directory, clock, counts, killed, logged, writer, tokenOf, reach, hold };
}

const token = (spiffeId: SpiffeId, jti: string, now = testNow, ttlMs = 3_600_000): JwtSvid =>
  unsignedJwtSvid({ audience: 'billing', spiffeId, now, ttlMs, jti });

const pairOf = (svid: X509Svid): readonly [string, string] => [
  encodeCertificatesPem(svid.chain).toString(),
  encodePrivateKeyPem(svid.privateKey).toString(),
];

const pairIn = async (directory: string): Promise<readonly string[]> => [
  await read(directory, 'svid.pem'),
  await read(directory, 'svid.key'),
];

const setsIn = async (directory: string): Promise<number> =>
  (await readdir(directory)).filter((name) => name.startsWith('..svidecar-')).length;

describe('an output', () => {
  it('is written with the first identity and again with each change of it or of a bundle', async (t) => {
    const { directory, counts, writer, reach, hold } = await start(t, () => ({ federated: true }));
    assert.deepEqual(writer.state(), { directory, writtenAt: undefined, problem: undefined });
    const [first, second] = [await newSvid(), await newSvid()];
    hold(first);
    await reach('the first set', () => counts.written === 1);
    assert.deepEqual(await pairIn(directory), pairOf(first));
    assert.ok((writer.state().writtenAt ?? 0) >= testNow);
    hold(second);
    await reach('the second set', () => counts.written === 2);
    assert.deepEqual(await pairIn(directory), pairOf(second));
    hold(second, { bundles: withPartner });
    await reach('the third set', () => counts.written === 3);
    assert.match(await read(directory, 'federated/partner.example.pem'), /BEGIN CERTIFICATE/);
  });

  it('is not written again for what is the same', async (t) => {
    const { counts, reach, hold, clock } = await start(t);
    const svid = await newSvid();
    hold(svid);
    await reach('the first set', () => counts.written === 1);
    hold(svid, { version: 2 });
    await clock.advance(120_000);
    hold(await newSvid());
    await reach('another set', () => counts.written > 1);
    assert.equal(counts.written, 2);
  });

  it('keeps two switches a second apart, and the last of many changes counts', async (t) => {
    const { directory, counts, reach, hold, clock } = await start(t);
    hold(await newSvid());
    await until('the first set', () => (counts.written === 1 ? true : undefined));
    hold(await newSvid());
    const last = await newSvid();
    hold(last);
    await clock.advance(999);
    assert.equal(counts.written, 1);
    await reach('the next set', () => counts.written === 2);
    assert.deepEqual(await pairIn(directory), pairOf(last));
  });

  it('keeps the set before for thirty seconds', async (t) => {
    const { directory, counts, reach, hold, clock } = await start(t);
    for (const round of [1, 2, 3]) {
      hold(await newSvid());
      await reach('a set', () => counts.written === round);
    }
    await until('the third set to be cleaned up after', async () =>
      (await setsIn(directory)) === 2 ? true : undefined,
    );
    await clock.advance(30_000);
    await until('the set before to go', async () => ((await setsIn(directory)) === 1 ? true : undefined));
  });

  it('keeps the set of an earlier process as long, and then deletes it', async (t) => {
    const { directory, counts, reach, hold, clock } = await start(t);
    const earlier = await newSvid();
    const files = buildSet(specOf(directory), {
      svid: earlier,
      snapshot: snapshotOf(earlier),
      tokens: new Map(),
    });
    const { name } = await writeSet(directory, files, specOf(directory));
    hold(await newSvid());
    await reach('the first set', () => counts.written === 1);
    assert.equal(await read(join(directory, name), 'svid.pem'), pairOf(earlier)[0]);
    await clock.advance(30_000);
    await until('the earlier set to go', async () => ((await setsIn(directory)) === 1 ? true : undefined));
  });

  it('never holds an X.509-SVID that has expired, and keeps what is there', async (t) => {
    const { directory, counts, reach, hold, clock } = await start(t);
    const svid = await newSvid();
    hold(svid);
    await reach('the first set', () => counts.written === 1);
    const { certificate, privateKey } = await own.leaf({
      uris: [svid.spiffeId],
      notAfter: testNow - 1000,
    });
    hold({ ...svid, chain: [certificate], privateKey });
    await clock.advance(60_000);
    assert.deepEqual(await pairIn(directory), pairOf(svid));
    const next = await newSvid();
    hold(next);
    await reach('the next set', () => counts.written > 1);
    assert.equal(counts.written, 2, 'there was none between');
    assert.deepEqual(await pairIn(directory), pairOf(next));
  });

  it('is deleted when the identity is taken away, and comes back with it', async (t) => {
    const { directory, counts, killed, reach, hold } = await start(t, (at) => ({
      signal: { pidFile: `${at}.pid`, name: 'SIGHUP' },
    }));
    await writeFile(`${directory}.pid`, '4711\n');
    hold(await newSvid());
    await reach('the first set', () => counts.sent === 1);
    hold(undefined, { bundles: new Map() });
    await reach('the files to be deleted', () => counts.withdrawn === 1);
    assert.equal(await setsIn(directory), 0);
    await assert.rejects(read(directory, 'svid.key'), { code: 'ENOENT' });
    hold(await newSvid());
    await reach('the files to come back', () => counts.sent === 2);
    assert.deepEqual(killed, ['4711 SIGHUP', '4711 SIGHUP'], 'no signal for files that went');
  });

  it('leaves files alone that an earlier process wrote, until there is an identity', async (t) => {
    const { directory, counts, hold, clock } = await start(t);
    await mkdir(directory);
    await writeFile(join(directory, 'svid.pem'), 'of an earlier process');
    hold(undefined);
    await clock.advance(60_000);
    assert.equal(await read(directory, 'svid.pem'), 'of an earlier process');
    assert.equal(counts.withdrawn, 0);
  });

  it('waits a little for its JWT-SVIDs, so that one set and one signal hold everything', async (t) => {
    const { directory, counts, killed, reach, hold, clock, tokenOf } = await start(t, (at) => ({
      jwt: [{ audience: 'billing', file: 'jwt.token' }],
      signal: { pidFile: `${at}.pid`, name: 'SIGUSR2' },
    }));
    await writeFile(`${directory}.pid`, '4711\n');
    const svid = await newSvid();
    const first = token(svid.spiffeId, '1');
    hold(svid);
    await clock.advance(3_000);
    await settled();
    assert.equal(counts.written, 0);
    tokenOf(svid.spiffeId, 'billing').set(first);
    await reach('the first set', () => counts.written === 1);
    assert.equal(await read(directory, 'jwt.token'), first.token);
    const renewed = token(svid.spiffeId, '2');
    tokenOf(svid.spiffeId, 'billing').set(renewed);
    await reach('the renewed token', () => counts.sent === 2);
    assert.equal(await read(directory, 'jwt.token'), renewed.token);
    assert.deepEqual(await pairIn(directory), pairOf(svid));
    assert.deepEqual(killed, ['4711 SIGUSR2', '4711 SIGUSR2']);
  });

  it('loses a JWT-SVID that is dropped, and keeps certificate and key', async (t) => {
    const { directory, counts, reach, hold, tokenOf } = await start(t, () => ({
      jwt: [{ audience: 'billing', file: 'jwt.token' }],
    }));
    const svid = await newSvid();
    tokenOf(svid.spiffeId, 'billing').set(token(svid.spiffeId, '1'));
    hold(svid);
    await reach('the first set', () => counts.written === 1);
    tokenOf(svid.spiffeId, 'billing').set(undefined);
    await reach('the set without it', () => counts.written === 2);
    await assert.rejects(read(directory, 'jwt.token'), { code: 'ENOENT' });
    assert.deepEqual(await pairIn(directory), pairOf(svid));
  });

  it('does not wait for ever for a JWT-SVID, and adds it when it comes', async (t) => {
    const { directory, counts, reach, hold, tokenOf } = await start(t, () => ({
      jwt: [{ audience: 'billing', file: 'jwt.token' }],
    }));
    const svid = await newSvid();
    hold(svid);
    await reach('a set without the token', () => counts.written === 1);
    await assert.rejects(read(directory, 'jwt.token'), { code: 'ENOENT' });
    tokenOf(svid.spiffeId, 'billing').set(token(svid.spiffeId, '1'));
    await reach('a set with the token', () => counts.written === 2);
    assert.match(await read(directory, 'jwt.token'), /^ey/);
  });

  it('holds no token that has expired, nor one of another identity', async (t) => {
    const { directory, counts, reach, hold, clock, tokenOf } = await start(t, () => ({
      jwt: [{ audience: 'billing', file: 'jwt.token' }],
    }));
    const [web, api] = [await newSvid(), await newSvid('spiffe://example.org/api')];
    const apiId = parseSpiffeId('spiffe://example.org/api');
    tokenOf(web.spiffeId, 'billing').set(token(web.spiffeId, '1', testNow, 60_000));
    hold(web);
    await reach('the first set', () => counts.written === 1);
    hold(api);
    await reach('the set of the other identity', () => counts.written === 2);
    await assert.rejects(read(directory, 'jwt.token'), { code: 'ENOENT' });
    tokenOf(apiId, 'billing').set(token(apiId, '2', clock.now(), 60_000));
    await reach('its token', () => counts.written === 3);
    await clock.advance(90_000);
    await reach('the set without the expired token', () => counts.written === 4);
    await assert.rejects(read(directory, 'jwt.token'), { code: 'ENOENT' });
    assert.deepEqual(await pairIn(directory), pairOf(api));
  });

  it('keeps the old set when it cannot write, says so once with a remedy, and recovers', async (t) => {
    const { directory, counts, logged, writer, reach, hold } = await start(t);
    const first = await newSvid();
    hold(first);
    await reach('the first set', () => counts.written === 1);
    await chmod(dirname(directory), 0o777);
    const second = await newSvid();
    hold(second);
    await reach('several failures', () => counts.failed >= 3);
    assert.deepEqual(await pairIn(directory), pairOf(first));
    assert.match(writer.state().problem ?? '', /everyone may write to .*use another directory/);
    const told = logged.filter((line) => line.startsWith('files not written; those that are there stay'));
    assert.equal(told.length, 1);
    await chmod(dirname(directory), 0o755);
    await reach('the second set', () => counts.written === 2);
    assert.deepEqual(await pairIn(directory), pairOf(second));
    assert.equal(writer.state().problem, undefined);
  });

  it('is written although nobody is there to be signalled', async (t) => {
    const { counts, reach, hold, logged } = await start(t, (at) => ({
      signal: { pidFile: `${at}.pid`, name: 'SIGHUP' },
    }));
    hold(await newSvid());
    await reach('the attempt to signal', () => counts.notSent === 1);
    assert.equal(counts.written, 1);
    assert.ok(logged.some((line) => line.startsWith('nobody to send the reload signal to')));
  });

  it('logs neither key nor token', async (t) => {
    const { counts, reach, hold, logged, tokenOf } = await start(t, () => ({
      jwt: [{ audience: 'billing', file: 'jwt.token' }],
    }));
    const svid = await newSvid();
    const held = token(svid.spiffeId, '1');
    tokenOf(svid.spiffeId, 'billing').set(held);
    hold(svid);
    await reach('the set', () => counts.written === 1);
    const said = logged.join('\n');
    assert.match(said, /files written/);
    assert.ok(!said.includes(held.token) && !said.includes('PRIVATE') && !said.includes('BEGIN'));
  });
});
