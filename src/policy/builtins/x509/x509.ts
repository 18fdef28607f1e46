import { createPublicKey } from 'node:crypto';
import { LimitError, MalformedError } from '../../../runtime/errors.ts';
import { isSameKey } from '../../../spiffe/same-key.ts';
import { type Builtins, type EvaluationContext, integer, object, refuse, text } from '../args.ts';
import { decodeBase64 } from '../go-text.ts';
import { pemBlocks } from '../pem-blocks.ts';
import { privateKeyJson, privateKeyJwk, readAnyPrivateKey, readPrivateKeys } from '../private-keys.ts';
import { typeOf, type Value } from '../value.ts';
import { type GoCertificate, readCertificates } from './x509-certificate.ts';
import { certificateJson, extendedCertificateJson, record } from './x509-json.ts';
import { certificateRequestJson } from './x509-request.ts';
import { serverAuth, type VerifyOptions, verifyChain } from './x509-verify.ts';

/** Longest text of certificates or keys. */
const maxText = 1024 * 1024;
const begin = '-----BEGIN';

/** The JSON of a chain that does not hold. */
const invalid: Value = Object.freeze([false, Object.freeze([])]);

/** Extended key usages by the names that OPA has for them; the place is Go's number. */
const usageNames: readonly string[] = [
  'Any',
  'ServerAuth',
  'ClientAuth',
  'CodeSigning',
  'EmailProtection',
  'IPSECEndSystem',
  'IPSECTunnel',
  'IPSECUser',
  'TimeStamping',
  'OCSPSigning',
  'MicrosoftServerGatedCrypto',
  'NetscapeServerGatedCrypto',
  'MicrosoftCommercialCodeSigning',
  'MicrosoftKernelCodeSigning',
].map((name) => `KeyUsage${name}`);

/** `crypto.x509.*` and `crypto.parse_private_keys`, with the JSON that Go makes of its types. */
export const x509Builtins: Builtins = {
  'crypto.x509.parse_certificates': (args) => certificatesOf(bounded(args, 0)).map(extendedCertificateJson),
  'crypto.x509.parse_and_verify_certificates': (args, context) => {
    const certificates = certificatesIfReadable(bounded(args, 0));
    return verified(certificates, defaults(context), extendedCertificateJson);
  },
  'crypto.x509.parse_and_verify_certificates_with_options': (args, context) => {
    const options = object(args, 1);
    const certificates = certificatesIfReadable(bounded(args, 0));
    if (certificates === undefined) return invalid;
    return verified(certificates, optionsOf(options, context), certificateJson);
  },
  'crypto.x509.parse_certificate_request': (args) => {
    const written = bounded(args, 0);
    const isPem = written.startsWith(`${begin} CERTIFICATE REQUEST-----`);
    const decoded = isPem ? Buffer.from(written) : decodeBase64(written);
    const [block] = pemBlocks(decoded.toString('latin1'));
    if (block === undefined) return certificateRequestJson(decoded);
    return block.type === 'CERTIFICATE REQUEST'
      ? certificateRequestJson(block.der)
      : refuse('PEM is no request');
  },
  'crypto.x509.parse_keypair': (args) => {
    const chain = pemBlocks(pemOf(bounded(args, 0), 'CERTIFICATE')).filter(
      ({ type }) => type === 'CERTIFICATE',
    );
    const key = pemBlocks(pemOf(bounded(args, 1), 'PRIVATE KEY')).find(({ type }) =>
      /(?:^| )PRIVATE KEY$/.test(type),
    );
    const first = chain[0]?.der ?? refuse('text has no certificate');
    const [leaf, ...others] = readCertificates(first);
    if (leaf === undefined || others.length > 0) return refuse('certificate is followed by other bytes');
    const privateKey = readAnyPrivateKey(key?.der ?? refuse('text has no private key'));
    if (leaf.publicKey.key === undefined || !isSameKey(leaf.publicKey.key, createPublicKey(privateKey))) {
      return refuse('private key is not that of the certificate');
    }
    return record({
      Certificate: chain.map(({ der }) => der.toString('base64')),
      PrivateKey: privateKeyJson(privateKey),
      SupportedSignatureAlgorithms: null,
      OCSPStaple: null,
      SignedCertificateTimestamps: null,
      Leaf: certificateJson(leaf),
    });
  },
  'crypto.x509.parse_rsa_private_key': (args) => {
    const written = bounded(args, 0);
    if (written === '') return refuse('text has no private key');
    const [key] = readPrivateKeys(
      pemBlocks(plainPem(written.startsWith(begin) ? written : decodeText(written))),
    );
    return key === undefined ? null : privateKeyJwk(key);
  },
  'crypto.parse_private_keys': (args) => {
    const written = bounded(args, 0);
    return written === '' ? null : readPrivateKeys(pemBlocks(plainPem(written))).map(privateKeyJson);
  },
};

function bounded(args: readonly Value[], index: number): string {
  const written = text(args, index);
  if (written.length > maxText) throw new LimitError('text of certificates or keys is too long');
  return written;
}

/** PEM, or base64 of PEM or of DER. Throws MalformedError. */
function certificatesOf(written: string): readonly GoCertificate[] {
  if (written.startsWith(begin)) return fromPem(written);
  const decoded = decodeText(written);
  return decoded.startsWith(begin) ? fromPem(decoded) : readCertificates(Buffer.from(decoded, 'latin1'));
}

function fromPem(written: string): readonly GoCertificate[] {
  const blocks = pemBlocks(written);
  if (blocks.some(({ type }) => type !== 'CERTIFICATE'))
    return refuse('PEM has a block that is no certificate');
  return readCertificates(Buffer.concat(blocks.map(({ der }) => der)));
}

function certificatesIfReadable(written: string): readonly GoCertificate[] | undefined {
  try {
    return certificatesOf(written);
  } catch (error) {
    if (error instanceof MalformedError) return undefined;
    throw error;
  }
}

/** What base64 stands for, a character a byte. */
function decodeText(written: string): string {
  return decodeBase64(written).toString('latin1');
}

function plainPem(written: string): string {
  try {
    return decodeText(written);
  } catch (error) {
    if (error instanceof MalformedError) return written;
    throw error;
  }
}

/** PEM as it is, or what base64 stands for, which is PEM or the DER of one block. */
function pemOf(written: string, label: string): string {
  const decoded = written.startsWith(`${begin} `) ? written : decodeText(written);
  if (decoded.startsWith(`${begin} `)) return decoded;
  const body = Buffer.from(decoded, 'latin1').toString('base64');
  return `${begin} ${label}-----\n${body}\n-----END ${label}-----\n`;
}

function verified(
  certificates: readonly GoCertificate[] | undefined,
  options: VerifyOptions,
  json: (certificate: GoCertificate) => Value,
): Value {
  const chain = certificates && verifyChain(certificates, options);
  return chain === undefined ? invalid : [true, chain.map(json)];
}

function defaults({ nowNs }: EvaluationContext): VerifyOptions {
  return { nowNs, host: '', keyUsages: [serverAuth] };
}

function optionsOf(options: ReadonlyMap<Value, Value>, context: EvaluationContext): VerifyOptions {
  let { nowNs, host, keyUsages } = defaults(context);
  for (const [name, value] of options) {
    if (typeof name !== 'string') continue;
    if (name === 'DNSName') host = withoutQuotes(text([value], 0));
    else if (name === 'CurrentTime') nowNs = integer([value], 0);
    else if (name === 'MaxConstraintComparisons') integer([value], 0);
    else if (name === 'KeyUsages') keyUsages = usagesOf(value);
    else refuse('unknown option');
  }
  return { nowNs, host, keyUsages };
}

function usagesOf(value: Value): readonly number[] {
  if (typeOf(value) !== 'array' && typeOf(value) !== 'set')
    return refuse('key usages are no array and no set');
  const usages = [...(value as Iterable<Value>)].flatMap((name) => {
    if (typeof name !== 'string') return [];
    const number = usageNames.indexOf(withoutQuotes(name));
    return number < 0 ? refuse('unknown key usage') : [number];
  });
  return usages.length === 0 ? [serverAuth] : usages;
}

function withoutQuotes(written: string): string {
  let [start, end] = [0, written.length];
  while (start < end && written[start] === '"') start++;
  while (end > start && written[end - 1] === '"') end--;
  return written.slice(start, end);
}
