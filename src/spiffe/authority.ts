import 'reflect-metadata';
import { generateKeyPairSync, randomBytes, randomUUID, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import type { JwtAuthority } from './bundle.ts';
import { type Certificate, parseCertificate } from './certificate.ts';
import { encodeJwtSvid, type JwtSvid } from './jwt-svid.ts';
import { idOfTrustDomain, type SpiffeId, type TrustDomain } from './spiffe-id.ts';
import type { X509Svid } from './x509-svid.ts';

/** Signs X509-SVIDs of one trust domain. The key is in memory only and ends with the process. */
export interface X509Authority {
  readonly certificate: Certificate;
  /** A new key and a certificate for it, valid from a little before `now`; never longer than the authority itself. */
  issue(options: {
    spiffeId: SpiffeId;
    ttlMs: number;
    now: number;
    hint?: string | undefined;
  }): Promise<X509Svid>;
}

/** Signs JWT-SVIDs with one key. */
export interface JwtSigner {
  readonly authority: JwtAuthority;
  sign(options: {
    spiffeId: SpiffeId;
    audiences: readonly string[];
    ttlMs: number;
    now: number;
  }): Promise<JwtSvid>;
}

const algorithm = Object.freeze({ name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' });
/** Peers whose clock is a little slow accept a fresh certificate, too. */
const backdateMs = 10_000;

/**
 * An authority with a new ECDSA P-256 key and a self-signed certificate that carries the trust domain's SPIFFE ID
 * (X509-SVID §3.2). `ttlMs` counts from `now`, both in milliseconds.
 */
export async function createX509Authority(options: {
  trustDomain: TrustDomain;
  ttlMs: number;
  now: number;
}): Promise<X509Authority> {
  const { trustDomain, ttlMs, now } = options;
  const keys = await createKeys();
  const name = new x509.Name([{ O: ['svidecar'] }, { CN: [`dev authority of ${trustDomain}`] }]).toString();
  const certificate = await issueCertificate({
    subject: name,
    issuer: name,
    publicKey: keys.publicKey,
    signingKey: keys.privateKey,
    notBefore: now - backdateMs,
    notAfter: now + ttlMs,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      uriSan(idOfTrustDomain(trustDomain), false),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });

  return Object.freeze({
    certificate,
    async issue({ spiffeId, ttlMs, now, hint = '' }) {
      const leafKeys = await createKeys();
      const leaf = await issueCertificate({
        // X509-SVID §2: without a subject the SAN is critical.
        subject: '',
        issuer: name,
        publicKey: leafKeys.publicKey,
        signingKey: keys.privateKey,
        notBefore: Math.max(now - backdateMs, certificate.notBefore),
        notAfter: Math.min(now + ttlMs, certificate.notAfter),
        extensions: [
          new x509.BasicConstraintsExtension(false, undefined, true),
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
          new x509.ExtendedKeyUsageExtension([
            x509.ExtendedKeyUsage.serverAuth,
            x509.ExtendedKeyUsage.clientAuth,
          ]),
          uriSan(spiffeId, true),
          await x509.SubjectKeyIdentifierExtension.create(leafKeys.publicKey),
          await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey),
        ],
      });
      const privateKey = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', leafKeys.privateKey));
      return Object.freeze<X509Svid>({ spiffeId, chain: [leaf], privateKey, hint });
    },
  } satisfies X509Authority);
}

/** A signer with a new ECDSA P-256 key, for ES256; the key ID is random when none is given. */
export function createJwtSigner(options: { keyId?: string | undefined } = {}): Promise<JwtSigner> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const keyId = options.keyId ?? randomUUID();
  const jwk = Object.freeze({ ...publicKey.export({ format: 'jwk' }), kid: keyId });
  return Promise.resolve(
    Object.freeze({
      authority: Object.freeze({ keyId, jwk, publicKey }),
      sign: (request) => encodeJwtSvid({ ...request, keyId, privateKey }),
    } satisfies JwtSigner),
  );
}

type Keys = Readonly<{ publicKey: webcrypto.CryptoKey; privateKey: webcrypto.CryptoKey }>;

function createKeys(): Promise<Keys> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
}

function uriSan(id: SpiffeId, critical: boolean): x509.Extension {
  return new x509.SubjectAlternativeNameExtension([{ type: 'url', value: id }], critical);
}

async function issueCertificate(options: {
  subject: string;
  issuer: string;
  publicKey: webcrypto.CryptoKey;
  signingKey: webcrypto.CryptoKey;
  notBefore: number;
  notAfter: number;
  extensions: x509.Extension[];
}): Promise<Certificate> {
  const signed = await x509.X509CertificateGenerator.create(
    {
      ...options,
      serialNumber: randomSerial(),
      notBefore: new Date(options.notBefore),
      notAfter: new Date(options.notAfter),
      signingAlgorithm: algorithm,
    },
    webcrypto,
  );
  return parseCertificate(Buffer.from(signed.rawData));
}

/** 128 random bits; the first byte keeps it positive and of full length. */
function randomSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
}
