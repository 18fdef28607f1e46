import { AppError, ConfigError, type ConfigProblem, MalformedError } from '../runtime/errors.ts';
import type { FileEvent } from '../runtime/file-watch.ts';
import type { JwtBundle, JwtBundleSet, X509Bundle, X509BundleSet } from '../spiffe/bundle.ts';
import { parseBundleDocument } from '../spiffe/bundle-document.ts';
import { type Certificate, parsePemCertificates } from '../spiffe/certificate.ts';
import { parsePrivateKeyPem } from '../spiffe/private-key.ts';
import { type SpiffeId, type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import { verifyX509Svid } from '../spiffe/verify.ts';
import type { X509Context } from '../spiffe/x509-context.ts';
import { checkLeaf } from '../spiffe/x509-leaf.ts';
import { checkX509Svid, maxChainLength, type X509Svid } from '../spiffe/x509-svid.ts';

/** The files of `identity.files`, by path. */
export type IdentityFileNames = Readonly<{
  /** X509-SVID in PEM, leaf first. */
  certificate: string;
  privateKey: string;
  /** Of the own trust domain: PEM, or a SPIFFE bundle document. */
  bundle: string;
  federatedBundles: readonly Readonly<{ trustDomain: TrustDomain; file: string }>[];
}>;

/** What the files say together. */
export type FileIdentity = Readonly<{
  x509: X509Context;
  /** Of those domains whose bundle is a SPIFFE bundle document; PEM has no JWT authorities. */
  jwtBundles: JwtBundleSet;
  /** For the log: nothing that keeps the identity from being used. */
  warnings: readonly string[];
}>;

const maxAuthorities = 1_000;
const othersMayRead = 0o004;

type Bundle = Readonly<{ x509: X509Bundle; jwt?: JwtBundle }>;

/** Every path of the set, in the order in which `parseIdentityFiles` takes what they hold. */
export function pathsOf(names: IdentityFileNames): readonly string[] {
  const { certificate, privateKey, bundle, federatedBundles } = names;
  return [certificate, privateKey, bundle, ...federatedBundles.map(({ file }) => file)];
}

/**
 * The identity that the files hold, whole or not at all: the leaf follows the rules of X509-SVID at `now` (milliseconds),
 * the key is the leaf's, every bundle parses. Throws ConfigError with every problem, each with its key, its file and
 * what to do. `events` stand in the order of `pathsOf`.
 */
export function parseIdentityFiles(
  names: IdentityFileNames,
  events: readonly FileEvent[],
  now: number,
): FileIdentity {
  const problems: ConfigProblem[] = [];
  const warnings: string[] = [];
  const [certificateEvent, keyEvent, bundleEvent, ...federatedEvents] = events;

  /** What `parse` makes of the file; undefined, and a problem more, when that fails. */
  function read<T>(
    key: string,
    file: string,
    event: FileEvent | undefined,
    parse: (bytes: Buffer) => T,
  ): T | undefined {
    const path = `identity.files.${key}`;
    try {
      return parse(contentOf(file, event));
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      problems.push({
        path,
        message: error.message.includes(file) ? error.message : `${file}: ${error.message}`,
      });
      return undefined;
    }
  }

  const identity = read('certificate', names.certificate, certificateEvent, (bytes) =>
    parseChain(bytes, now),
  );
  const privateKey = read('private_key', names.privateKey, keyEvent, (bytes) => {
    const key = parsePrivateKeyPem(bytes);
    if (identity !== undefined) checkPair(names, { ...identity, privateKey: key, hint: '' }, now);
    return key;
  });
  if (keyEvent?.kind === 'content' && (keyEvent.mode & othersMayRead) !== 0) {
    warnings.push(`${names.privateKey} may be read by every user of this machine: chmod o-r it`);
  }
  // Without a certificate it is not known whose bundle this is; that it parses can still be told.
  const own = identity === undefined ? undefined : trustDomainOf(identity.spiffeId);
  const ownBundle = read('bundle', names.bundle, bundleEvent, (bytes) => {
    const bundle = parseBundle(bytes, own ?? ('unknown' as TrustDomain));
    if (bundle.x509.authorities.length === 0) {
      throw new MalformedError('bundle has no X.509 authority, so nobody could be trusted');
    }
    return bundle;
  });
  const federated = names.federatedBundles.map(({ trustDomain, file }, index) =>
    read(`federated_bundles.${trustDomain}`, file, federatedEvents[index], (bytes) => {
      if (trustDomain === own) {
        throw new MalformedError(
          `${trustDomain} is the own trust domain: its bundle is identity.files.bundle`,
        );
      }
      return parseBundle(bytes, trustDomain);
    }),
  );
  if (problems.length > 0 || identity === undefined || privateKey === undefined || ownBundle === undefined) {
    throw new ConfigError(problems);
  }
  const all = [ownBundle, ...federated.filter((bundle) => bundle !== undefined)];
  const bundles: X509BundleSet = new Map(all.map(({ x509 }) => [x509.trustDomain, x509]));
  const verification = verifyX509Svid(identity.chain, bundles, now);
  if (!verification.valid) {
    warnings.push(
      `${names.certificate} is not trusted by ${names.bundle}, as peers with the same bundle will find: ${verification.message}`,
    );
  }
  const svid: X509Svid = Object.freeze({ ...identity, privateKey, hint: '' });
  return Object.freeze({
    x509: Object.freeze({ svids: Object.freeze([svid] as const), bundles }),
    jwtBundles: new Map(
      all.flatMap(({ jwt }) => (jwt === undefined ? [] : [[jwt.trustDomain, jwt] as const])),
    ),
    warnings: Object.freeze(warnings),
  });
}

function contentOf(file: string, event: FileEvent | undefined): Buffer {
  if (event?.kind === 'content') return event.bytes;
  throw new MalformedError(
    event?.kind === 'unreadable'
      ? event.message
      : `${file} does not exist: put the file there, or correct the path`,
  );
}

function parseChain(
  pem: Buffer,
  now: number,
): Readonly<{ spiffeId: SpiffeId; chain: readonly [Certificate, ...Certificate[]] }> {
  const [leaf, ...intermediates] = parsePemCertificates(pem.toString('latin1'), maxChainLength);
  if (leaf === undefined)
    throw new MalformedError('file is empty: put the certificate chain there, leaf first');
  const spiffeId = checkLeaf(leaf, now);
  if (typeof spiffeId !== 'string')
    throw new MalformedError(`not usable as an X509-SVID: ${spiffeId.message}`);
  return { spiffeId, chain: Object.freeze([leaf, ...intermediates] as const) };
}

/** All rules for an X509-SVID of ours, in words that name both files. */
function checkPair(names: IdentityFileNames, svid: X509Svid, now: number): void {
  try {
    checkX509Svid(svid, now);
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    const message = `${names.privateKey} with ${names.certificate}: ${error.message}; write both anew`;
    throw new MalformedError(message, { cause: error });
  }
}

/** A SPIFFE bundle document, or certificates in PEM. A file without anything in it trusts nothing. */
function parseBundle(bytes: Buffer, trustDomain: TrustDomain): Bundle {
  const text = bytes.toString('utf8');
  if (text.trimStart().startsWith('{')) {
    const { x509, jwt, sequence } = parseBundleDocument(text, trustDomain);
    return { x509: sequence === undefined ? x509 : Object.freeze({ ...x509, sequence }), jwt };
  }
  const authorities = parsePemCertificates(text, maxAuthorities);
  return { x509: Object.freeze({ trustDomain, authorities: Object.freeze(authorities), crls: [] }) };
}
