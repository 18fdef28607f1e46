import { MalformedError } from '../runtime/errors.ts';
import type { Certificate } from './certificate.ts';
import { parseSpiffeId, pathOf, type SpiffeId } from './spiffe-id.ts';

/** Why an X509-SVID is refused: the closed list of the product's contract. */
export type X509Reason =
  | 'malformed'
  | 'no_spiffe_id'
  | 'multiple_uri_sans'
  | 'invalid_spiffe_id'
  | 'leaf_is_ca'
  | 'bad_key_usage'
  | 'expired'
  | 'not_yet_valid'
  | 'unknown_trust_domain'
  | 'untrusted_chain';

export type X509Refusal = Readonly<{ valid: false; reason: X509Reason; message: string }>;

const serverAuth = '1.3.6.1.5.5.7.3.1';
const clientAuth = '1.3.6.1.5.5.7.3.2';

/**
 * Reads the SPIFFE ID of a leaf and holds it against every rule that needs no other certificate: X509-SVID §2, §3.1,
 * §4.1, §4.3, §4.4 and its time at `now` (milliseconds). Trust is not looked at. Never throws.
 */
export function checkLeaf(leaf: Certificate, now: number): SpiffeId | X509Refusal {
  const [uri, ...others] = leaf.uriSans;
  if (uri === undefined)
    return refuse('no_spiffe_id', 'certificate has no URI in its subject alternative names');
  if (others.length > 0) {
    return refuse(
      'multiple_uri_sans',
      `certificate has ${leaf.uriSans.length} URIs where exactly one may be`,
    );
  }
  let id: SpiffeId;
  try {
    id = parseSpiffeId(uri);
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    return refuse('invalid_spiffe_id', error.message);
  }
  if (leaf.isCa) return refuse('leaf_is_ca', 'certificate is a signing certificate (basic constraints cA)');
  if (pathOf(id) === '') return refuse('invalid_spiffe_id', 'SPIFFE ID of the certificate has no path');
  const usage = checkUsage(leaf);
  if (usage !== undefined) return refuse('bad_key_usage', usage);
  if (leaf.notAfter < now) return refuse('expired', `certificate expired at ${formatTime(leaf.notAfter)}`);
  if (leaf.notBefore > now) {
    return refuse('not_yet_valid', `certificate is not valid before ${formatTime(leaf.notBefore)}`);
  }
  return id;
}

/** A refusal as a value. */
export function refuse(reason: X509Reason, message: string): X509Refusal {
  return { valid: false, reason, message };
}

function checkUsage({ keyUsage, extendedKeyUsage }: Certificate): string | undefined {
  if (keyUsage === undefined) return 'certificate has no key usage';
  if (!keyUsage.has('digitalSignature')) return 'certificate lacks the key usage digitalSignature';
  for (const forbidden of ['keyCertSign', 'cRLSign']) {
    if (keyUsage.has(forbidden))
      return `certificate has the key usage ${forbidden}, which a leaf must not have`;
  }
  if (
    extendedKeyUsage !== undefined &&
    !(extendedKeyUsage.has(serverAuth) && extendedKeyUsage.has(clientAuth))
  ) {
    return 'certificate has an extended key usage without both serverAuth and clientAuth';
  }
  return undefined;
}

function formatTime(ms: number): string {
  return new Date(ms).toISOString();
}
