import { constants, createHash, type KeyObject, verify } from 'node:crypto';
import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { parseJson } from '../../runtime/parse-json.ts';
import { canonicalJson } from './canonical-json.ts';
import type { TarFile } from './tar.ts';

const signaturesPath = '.signatures.json';
/** Room for the path and the hash of as many files as an archive may have. */
const maxSignaturesBytes = 8 * 1024 * 1024;

/** Names of OPA → names of OpenSSL. */
const hashes: ReadonlyMap<string, string> = new Map([
  ['MD5', 'md5'],
  ['SHA-1', 'sha1'],
  ['SHA-224', 'sha224'],
  ['SHA-256', 'sha256'],
  ['SHA-384', 'sha384'],
  ['SHA-512', 'sha512'],
  ['SHA-512-224', 'sha512-224'],
  ['SHA-512-256', 'sha512-256'],
]);

const curves: ReadonlyMap<string, string> = new Map([
  ['ES256', 'prime256v1'],
  ['ES384', 'secp384r1'],
  ['ES512', 'secp521r1'],
]);

type SignedFile = Readonly<{ name: string; hash: string; algorithm: string }>;

/**
 * Judges `.signatures.json` as OPA does: signed by `key`, without scope, and listing exactly the files of the bundle with
 * the hashes that they have. A signed bundle needs a key, and a key needs a signed bundle. Throws MalformedError.
 */
export function verifyBundleSignature(files: readonly TarFile[], key: KeyObject | undefined): void {
  const signatures = files.find(({ path }) => path === signaturesPath);
  if (signatures === undefined) {
    if (key === undefined) return;
    throw new MalformedError(`bundle has no ${signaturesPath}; sign it or remove verification_key`);
  }
  if (key === undefined) throw new MalformedError('bundle is signed; set verification_key to check it');
  const expected = new Map(signedFiles(signatures.bytes, key).map((file) => [file.name, file]));
  for (const { path, bytes } of files) {
    if (path === signaturesPath) continue;
    const file = expected.get(path);
    if (file === undefined) throw new MalformedError(`bundle file ${quoted(path)} is not signed`);
    if (hashOf(path, bytes, file.algorithm) !== file.hash) {
      throw new MalformedError(`bundle file ${quoted(path)} is not the one that was signed`);
    }
    expected.delete(path);
  }
  for (const name of expected.keys())
    throw new MalformedError(`signed file ${quoted(name)} is not in the bundle`);
}

function signedFiles(text: Buffer, key: KeyObject): readonly SignedFile[] {
  if (text.length > maxSignaturesBytes)
    throw new LimitError(`${signaturesPath} is larger than ${maxSignaturesBytes} bytes`);
  const { signatures } = objectOf(text, signaturesPath);
  const [token, ...more] = Array.isArray(signatures) ? (signatures as unknown[]) : [];
  if (typeof token !== 'string' || more.length > 0) {
    throw new MalformedError(`${signaturesPath} does not hold exactly one signature`);
  }
  const [header = '', payload = '', signature = '', ...rest] = token.split('.');
  const { alg } = objectOf(Buffer.from(header, 'base64url'), 'header of the bundle signature');
  const signed = Buffer.from(`${header}.${payload}`);
  if (rest.length > 0 || !verifies(String(alg), signed, key, Buffer.from(signature, 'base64url'))) {
    throw new MalformedError('bundle signature is not by verification_key');
  }
  const { files, scope = '' } = objectOf(
    Buffer.from(payload, 'base64url'),
    'payload of the bundle signature',
  );
  if (scope !== '') throw new MalformedError('bundle signature has a scope, and none is expected');
  if (!Array.isArray(files) || !files.every(isSignedFile)) {
    throw new MalformedError('payload of the bundle signature has no list of files');
  }
  return files;
}

/** RFC 7518 §3: the algorithm has to fit the key, so a public key is never taken for a secret. */
function verifies(alg: string, signed: Buffer, key: KeyObject, signature: Buffer): boolean {
  const hash = `sha${alg.slice(2)}`;
  const { namedCurve } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'ec' && namedCurve !== undefined && curves.get(alg) === namedCurve) {
    return verify(hash, signed, { key, dsaEncoding: 'ieee-p1363' }, signature);
  }
  if (key.asymmetricKeyType !== 'rsa') return false;
  if (/^RS(?:256|384|512)$/.test(alg)) return verify(hash, signed, key, signature);
  if (!/^PS(?:256|384|512)$/.test(alg)) return false;
  const saltLength = constants.RSA_PSS_SALTLEN_DIGEST;
  return verify(hash, signed, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }, signature);
}

function hashOf(path: string, bytes: Buffer, algorithm: string): string {
  const name = hashes.get(algorithm);
  if (name === undefined) throw new MalformedError(`hash ${quoted(algorithm)} of a signed file is unknown`);
  const structured = path === '.manifest' || path === 'data.json' || path.endsWith('/data.json');
  return createHash(name)
    .update(structured ? canonicalJson(bytes, quoted(path)) : bytes)
    .digest('hex');
}

function objectOf(bytes: Buffer, what: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = parseJson(bytes.toString('utf8'));
  } catch (error) {
    throw new MalformedError(`${what} is not JSON`, { cause: error });
  }
  if (typeof value !== 'object' || value === null) throw new MalformedError(`${what} is not a JSON object`);
  return value as Readonly<Record<string, unknown>>;
}

function isSignedFile(value: unknown): value is SignedFile {
  if (typeof value !== 'object' || value === null) return false;
  const { name, hash, algorithm } = value as Partial<Record<keyof SignedFile, unknown>>;
  return typeof name === 'string' && typeof hash === 'string' && typeof algorithm === 'string';
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}
