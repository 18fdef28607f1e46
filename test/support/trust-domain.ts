import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { createGrpcServer } from '../../src/grpc/server.ts';
import { createLatest } from '../../src/runtime/latest.ts';
import { silentLogger } from '../../src/runtime/log.ts';
import { createJwtSigner, createX509Authority, type X509Authority } from '../../src/spiffe/authority.ts';
import type { JwtBundle } from '../../src/spiffe/bundle.ts';
import { formatBundleDocument } from '../../src/spiffe/bundle-document.ts';
import { encodeCertificatesPem } from '../../src/spiffe/certificate.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/spiffe-id.ts';
import type { X509Context } from '../../src/spiffe/x509-context.ts';
import type { X509Svid } from '../../src/spiffe/x509-svid.ts';
import { createWorkloadApiService } from '../../src/workload/dev-server.ts';
import { tempDirectory } from './process.ts';

/** A trust domain whose authorities the test turns by hand, with a real Workload API in front. */
export interface TestTrustDomain {
  readonly name: string;
  /** The Workload API's address. */
  readonly workloadApi: string;
  /** The SPIFFE bundle document of now, with a refresh hint of one second. */
  bundle(): string;
  /** The X.509 authorities in the bundle, as programs with CA files take them. */
  authoritiesPem(): string;
  /** Fingerprints of the authorities in the bundle. */
  authorities(): readonly string[];
  /** Brings a new authority into the bundle, which does not sign yet. */
  prepareAuthority(): Promise<void>;
  /** Lets the newest authority sign, and gives every identity a new X509-SVID; the serial of the first is returned. */
  activateAuthority(): Promise<string>;
  /** Takes every authority but the newest out of the bundle. */
  retireAuthorities(): void;
}

const ttlMs = 3_600_000;

export async function startTrustDomain(
  t: TestContext,
  name: string,
  ids: readonly string[],
): Promise<TestTrustDomain> {
  const trustDomain = parseTrustDomain(name);
  const create = (): Promise<X509Authority> => createX509Authority({ trustDomain, ttlMs, now: Date.now() });
  const signer = await createJwtSigner();
  const jwt: JwtBundle = { trustDomain, authorities: [signer.authority] };
  let known: readonly X509Authority[] = [await create()];
  let svids = await issue();
  const context = createLatest(contextOf());
  const bundles = createLatest(new Map([[trustDomain, jwt]]));

  async function issue(): Promise<readonly X509Svid[]> {
    const newest = known.at(-1);
    if (newest === undefined) throw new Error('no authority');
    return Promise.all(
      ids.map((id) => newest.issue({ spiffeId: parseSpiffeId(id), ttlMs, now: Date.now() })),
    );
  }
  function contextOf(): X509Context {
    const authorities = known.map(({ certificate }) => certificate);
    return {
      svids: svids as X509Context['svids'],
      bundles: new Map([[trustDomain, { trustDomain, authorities, crls: [] }]]),
    };
  }

  const path = join(await tempDirectory(t), 'workload.sock');
  const source = {
    name: 'workload_api' as const,
    async *watchX509(signal: AbortSignal) {
      for await (const value of context.changes(signal)) yield { kind: 'update' as const, value };
    },
    async *watchJwtBundles(signal: AbortSignal) {
      for await (const value of bundles.changes(signal)) yield { kind: 'update' as const, value };
    },
    fetchJwtSvids: () => Promise.reject(new Error('not played here')),
  };
  const server = createGrpcServer({
    services: [createWorkloadApiService(source, Date.now)],
    log: silentLogger,
  });
  t.after(() => server.shutdown(0));
  const { address } = await server.listen({ kind: 'unix', path }, 0o600);

  return {
    name,
    workloadApi: address,
    bundle() {
      const x509 = contextOf().bundles.get(trustDomain);
      if (x509 === undefined) throw new Error('no bundle');
      return formatBundleDocument({ x509, jwt, refreshHintS: 1 });
    },
    authoritiesPem: () => encodeCertificatesPem(known.map(({ certificate }) => certificate)).toString(),
    authorities: () => known.map(({ certificate }) => certificate.fingerprint),
    async prepareAuthority() {
      known = [...known, await create()];
      context.set(contextOf());
    },
    async activateAuthority() {
      svids = await issue();
      context.set(contextOf());
      return svids[0]?.chain[0].serial ?? '';
    },
    retireAuthorities() {
      known = known.slice(-1);
      context.set(contextOf());
    },
  };
}
