import type { X509Bundle } from '../spiffe/bundle.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../spiffe/certificate.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { TrustSnapshot } from '../trust/snapshot.ts';
import type { ReloadSignal } from './reload-signal.ts';

/** One directory of files for programs that cannot speak SDS. */
export type OutputSpec = Readonly<{
  /** Absolute. */
  directory: string;
  /** Names of files in it: X.509-SVID chain, its key, the bundle of its trust domain. */
  certificate: string;
  privateKey: string;
  bundle: string;
  /** Also one file for each federated trust domain. */
  federated: boolean;
  /** Permission bits of what is public. */
  mode: number;
  /** Permission bits of key and tokens. */
  secretMode: number;
  jwt: readonly Readonly<{ audience: string; file: string }>[];
  /** Who is told of a new set. */
  signal: ReloadSignal | undefined;
}>;

/** One file of a set; `name` may lie in a directory of the set. */
export type SetFile = Readonly<{ name: string; content: Buffer; secret: boolean }>;

/** The directory inside a set that holds the bundles of other trust domains, one file each. */
const federatedDirectory = 'federated';

/**
 * The files of one set, which belong together: PEM chain, PKCS#8 key, bundles, and the JWT-SVIDs that are there. Another trust
 * domain that has no authority gets no file: nothing of it is trusted. Bundles of different domains are never pooled,
 * because a program that trusts such a file takes any domain's word for any other's names.
 */
export function buildSet(
  spec: OutputSpec,
  parts: { svid: X509Svid; snapshot: TrustSnapshot; tokens: ReadonlyMap<string, JwtSvid> },
): readonly SetFile[] {
  const { svid, snapshot, tokens } = parts;
  const own = trustDomainOf(svid.spiffeId);
  const others = spec.federated ? [...snapshot.bundles.values()].filter(isTrustedBeside(own)) : [];
  return Object.freeze([
    publicFile(spec.certificate, encodeCertificatesPem(svid.chain)),
    { name: spec.privateKey, content: encodePrivateKeyPem(svid.privateKey), secret: true },
    publicFile(spec.bundle, encodeCertificatesPem(snapshot.bundles.get(own)?.authorities ?? [])),
    ...others.map(({ trustDomain, authorities }) =>
      publicFile(`${federatedDirectory}/${trustDomain}.pem`, encodeCertificatesPem(authorities)),
    ),
    ...spec.jwt.flatMap(({ audience, file }) => {
      const token = tokens.get(audience)?.token;
      return token === undefined ? [] : [{ name: file, content: Buffer.from(token), secret: true }];
    }),
  ]);
}

/** True when both hold the same files with the same content. */
export function sameSet(a: readonly SetFile[], b: readonly SetFile[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ name, content }, index) => name === b[index]?.name && content.equals(b[index].content))
  );
}

function publicFile(name: string, content: Buffer): SetFile {
  return { name, content, secret: false };
}

function isTrustedBeside(own: string): (bundle: X509Bundle) => boolean {
  return ({ trustDomain, authorities }) => trustDomain !== own && authorities.length > 0;
}
