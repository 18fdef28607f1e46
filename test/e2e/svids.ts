import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { tempDirectory } from '../support/process.ts';
import { runCommand } from '../support/sidecar.ts';

export type PemIdentity = Readonly<{ certificatePem: string; privateKeyPem: string }>;

/** The SVID of `spiffeId` from a Workload API, as any operator would get it: with `svidecar fetch`. */
export async function fetchSvid(t: TestContext, workloadApi: string, spiffeId: string): Promise<PemIdentity> {
  const directory = await tempDirectory(t);
  const args = ['fetch', 'x509', '--workload-api', workloadApi, '--write', directory];
  const { code, output } = await runCommand(t, ...args);
  assert.equal(code, 0, output);
  for (const name of globSync('svid.*.pem', { cwd: directory })) {
    const certificatePem = await readFile(join(directory, name), 'utf8');
    if (new X509Certificate(certificatePem).subjectAltName !== `URI:${spiffeId}`) continue;
    const privateKeyPem = await readFile(join(directory, name.replace(/\.pem$/, '.key')), 'utf8');
    return { certificatePem, privateKeyPem };
  }
  throw new Error(`${workloadApi} has no SVID of ${spiffeId}`);
}
