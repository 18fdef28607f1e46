import type { KeyObject, X509Certificate } from 'node:crypto';

/** A parsed X.509 certificate: only what identity needs, read from the DER once. */
export type Certificate = Readonly<{
  /** Exactly as received. */
  der: Buffer;
  /** SHA-256 over the DER, lower-case hex. */
  fingerprint: string;
  /** Lower-case hex, without leading zeros. */
  serial: string;
  /** RFC 4514 text, for people. */
  subject: string;
  issuer: string;
  /** DER of the names, for comparing issuer with subject. */
  subjectDer: Buffer;
  issuerDer: Buffer;
  /** Milliseconds since the epoch. */
  notBefore: number;
  notAfter: number;
  uriSans: readonly string[];
  /** basicConstraints cA; false when the extension is absent. */
  isCa: boolean;
  pathLength: number | undefined;
  /** keyUsage bits by their RFC 5280 names; undefined when the extension is absent. */
  keyUsage: ReadonlySet<string> | undefined;
  /** extKeyUsage OIDs; undefined when the extension is absent. */
  extendedKeyUsage: ReadonlySet<string> | undefined;
  /** OIDs of critical extensions that this program does not know. */
  unknownCriticalExtensions: readonly string[];
  publicKey: KeyObject;
  /** Node's own view, for checkIssued and verify. */
  native: X509Certificate;
}>;
