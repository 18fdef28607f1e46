/** What the tests of this room share. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { OutputSpec } from '../../../src/outputs/output-set.ts';
import type { X509Svid } from '../../../src/spiffe/x509-svid.ts';
import { emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';
import { createTestAuthority, trustIn, x509Bundle, x509Bundles } from '../../support/ca.ts';

export const own = await createTestAuthority('example.org');
export const partner = await createTestAuthority('partner.example');
export const web = 'spiffe://example.org/web';

export const newSvid = (id = web): Promise<X509Svid> => own.svid(id);

export function snapshotOf(svid: X509Svid | undefined, more: Partial<TrustSnapshot> = {}): TrustSnapshot {
  return {
    ...emptySnapshot,
    version: 1,
    svids: svid === undefined ? [] : [svid],
    bundles: trustIn(own),
    ...more,
  };
}

export const withPartner = x509Bundles(
  x509Bundle('example.org', [own]),
  x509Bundle('partner.example', [partner]),
  x509Bundle('emptied.example', []),
);

export function specOf(directory: string, more: Partial<OutputSpec> = {}): OutputSpec {
  return {
    directory,
    certificate: 'svid.pem',
    privateKey: 'svid.key',
    bundle: 'bundle.pem',
    federated: false,
    mode: 0o644,
    secretMode: 0o600,
    jwt: [],
    signal: undefined,
    ...more,
  };
}

/** A directory below the sticky /tmp; outputs may lie in it. */
export async function outputDirectory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'svidecar-outputs-'));
  t.after(() => rm(path, { recursive: true, force: true, maxRetries: 3 }));
  return join(path, 'svid');
}

export const read = (directory: string, name: string): Promise<string> =>
  readFile(join(directory, name), 'utf8');
