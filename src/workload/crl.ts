import { MalformedError } from '../runtime/errors.ts';
import { derTag, expectTag, readSingleDer, splitDer } from '../spiffe/der.ts';

/**
 * The issuer's name, as DER, of a CRL in DER (RFC 5280 §5.1): all that is needed to know whose list it is. Nothing else
 * of the CRL is looked at. Throws MalformedError.
 */
export function crlIssuerDer(crl: Buffer): Buffer {
  const [tbs] = splitDer(readSingleDer(crl, derTag.sequence).content);
  const fields = splitDer(expectTag(tbs, derTag.sequence).content);
  // version is optional; signature and issuer follow it.
  const start = fields[0]?.tag === derTag.integer ? 1 : 0;
  expectTag(fields[start], derTag.sequence);
  const issuer = expectTag(fields[start + 1], derTag.sequence);
  if (issuer.content.length === 0) throw new MalformedError('CRL names no issuer');
  return issuer.raw;
}
