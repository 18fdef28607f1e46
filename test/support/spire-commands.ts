import { X509Certificate } from 'node:crypto';
import {
  encodeCertificatesPem,
  encodePrivateKeyPem,
  parseCertificates,
} from '../../src/spiffe/certificate.ts';
import type { Spire } from './spire.ts';

export type IssuedSvid = Readonly<{ spiffeId: string; leaf: X509Certificate }>;

/** What SPIRE's own client gets from the agent, in the agent's order. */
export async function issuedSvids(spire: Spire): Promise<readonly IssuedSvid[]> {
  const printed = await spire.agent('api', 'fetch', 'x509', '-output', 'json');
  const { svids } = JSON.parse(printed) as {
    svids: readonly { spiffe_id: string; x509_svid: string }[];
  };
  return svids.map(({ spiffe_id, x509_svid }) => ({
    spiffeId: spiffe_id,
    leaf: new X509Certificate(Buffer.from(x509_svid, 'base64')),
  }));
}

export type ValidatedJwt = Readonly<{ spiffe_id: string; claims: Readonly<Record<string, unknown>> }>;

/** What SPIRE says of a JWT-SVID; rejects when it is not valid. */
export async function validateJwt(spire: Spire, audience: string, token: string): Promise<ValidatedJwt> {
  const flags = ['-audience', audience, '-svid', token, '-output', 'json'];
  return JSON.parse(await spire.agent('api', 'validate', 'jwt', ...flags)) as ValidatedJwt;
}

/** SPIRE's bundle of its own trust domain: DER as base64, and key IDs. */
export async function ownBundle(spire: Spire): Promise<{
  x509Authorities: readonly X509Certificate[];
  jwtKeyIds: readonly string[];
}> {
  const { keys } = JSON.parse(await spire.server('bundle', 'show', '-format', 'spiffe')) as {
    keys: readonly { use: string; kid?: string; x5c?: readonly string[] }[];
  };
  return {
    x509Authorities: keys.flatMap(({ x5c = [] }) =>
      x5c.map((der) => new X509Certificate(Buffer.from(der, 'base64'))),
    ),
    jwtKeyIds: keys.flatMap(({ use, kid }) => (use === 'jwt-svid' && kid !== undefined ? [kid] : [])),
  };
}

/** An SVID straight from the server, which no agent renews. */
export async function mintSvid(
  spire: Spire,
  spiffeId: string,
): Promise<Readonly<{ certificatePem: Buffer; privateKeyPem: Buffer }>> {
  const printed = await spire.server('x509', 'mint', '-spiffeID', spiffeId, '-output', 'json');
  const minted = JSON.parse(printed) as { x509_svid: readonly string[]; private_key: string };
  const chain = Buffer.concat(minted.x509_svid.map((der) => Buffer.from(der, 'base64')));
  return {
    certificatePem: encodeCertificatesPem(parseCertificates(chain, 10)),
    privateKeyPem: encodePrivateKeyPem(Buffer.from(minted.private_key, 'base64')),
  };
}

type Authority = Readonly<{ authority_id: string }>;

/** One `spire-server localauthority x509` command: `show`, `prepare`, `activate`, `taint`, `revoke`. */
export async function localAuthority(
  spire: Spire,
  ...args: readonly string[]
): Promise<Readonly<{ active?: Authority; prepared_authority?: Authority }>> {
  const printed = await spire.server('localauthority', 'x509', ...args, '-output', 'json');
  return JSON.parse(printed) as Awaited<ReturnType<typeof localAuthority>>;
}

/** The serial of the agent's own SVID. */
export async function agentSerial(spire: Spire): Promise<string | undefined> {
  const { agents } = JSON.parse(await spire.server('agent', 'list', '-output', 'json')) as {
    agents: readonly { x509svid_serial_number: string }[];
  };
  return agents[0]?.x509svid_serial_number;
}
