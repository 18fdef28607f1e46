import { constants, createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';

/** One DER element of these parts. */
export function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const long = length
    .toString(16)
    .padStart(length > 0xff_ffff ? 8 : length > 0xffff ? 6 : length > 0xff ? 4 : 2, '0');
  const header =
    length < 0x80
      ? Buffer.of(tag, length)
      : Buffer.concat([Buffer.of(tag, 0x80 | (long.length / 2)), Buffer.from(long, 'hex')]);
  return Buffer.concat([header, content]);
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts);

export function oid(text: string): Buffer {
  const [root = 0n, second = 0n, ...rest] = text.split('.').map(BigInt);
  const bytes = [root * 40n + second, ...rest].flatMap((arc) => {
    const groups = [Number(arc & 0x7fn)];
    for (let left = arc >> 7n; left > 0n; left >>= 7n) groups.unshift(Number(left & 0x7fn) | 0x80);
    return groups;
  });
  return der(6, Buffer.from(bytes));
}

export function integer(value: bigint | number): Buffer {
  const hex = BigInt(value).toString(16);
  const even = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
  return der(2, (even[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), even]) : even);
}

export const bits = (bytes: Uint8Array, unused = 0): Buffer => der(3, Buffer.of(unused), bytes);

export function extension(id: string, value: Uint8Array, critical = false): Buffer {
  return sequence(oid(id), ...(critical ? [der(1, Buffer.of(0xff))] : []), der(4, value));
}

/** A name of one attribute an RDN: type, string, tag of the string. */
export function name(
  ...attributes: readonly (readonly [type: string, value: string | Buffer, tag?: number])[]
): Buffer {
  return sequence(
    ...attributes.map(([type, value, tag = 0x0c]) =>
      der(0x31, sequence(oid(type), der(tag, typeof value === 'string' ? Buffer.from(value) : value))),
    ),
  );
}

/** GeneralNames as they stand in subject alternative names and name constraints. */
export const general = Object.freeze({
  email: (text: string) => der(0x81, Buffer.from(text)),
  dns: (text: string) => der(0x82, Buffer.from(text)),
  uri: (text: string) => der(0x86, Buffer.from(text)),
  address: (...bytes: readonly number[]) => der(0x87, Buffer.from(bytes)),
  directory: (value: Buffer) => der(0xa4, value),
});

export const alternativeNames = (names: readonly Buffer[], critical = false): Buffer =>
  extension('2.5.29.17', sequence(...names), critical);

export const basicConstraints = (isCa: boolean, pathLength?: number): Buffer =>
  extension(
    '2.5.29.19',
    sequence(
      ...(isCa ? [der(1, Buffer.of(0xff))] : []),
      ...(pathLength === undefined ? [] : [integer(pathLength)]),
    ),
    true,
  );

export const keyUsage = (byte: number, unused = 0): Buffer =>
  extension('2.5.29.15', bits(Buffer.of(byte), unused), true);

export const extendedKeyUsage = (...purposes: readonly string[]): Buffer =>
  extension('2.5.29.37', sequence(...purposes.map(oid)));

export function nameConstraints(
  permitted: readonly Buffer[],
  excluded: readonly Buffer[],
  critical = true,
): Buffer {
  const side = (tag: number, bases: readonly Buffer[]): Buffer[] =>
    bases.length === 0 ? [] : [der(tag, ...bases.map((base) => sequence(base)))];
  return extension('2.5.29.30', sequence(...side(0xa0, permitted), ...side(0xa1, excluded)), critical);
}

export const serverAuth = '1.3.6.1.5.5.7.3.1';
export const clientAuth = '1.3.6.1.5.5.7.3.2';

/** A key pair with what a certificate of it is signed with. */
export type SigningKey = Readonly<{
  publicKey: KeyObject;
  privateKey: KeyObject;
  /** AlgorithmIdentifier */
  algorithm: Buffer;
  sign: (data: Buffer) => Buffer;
}>;

const nothing = der(5);

export function rsaKey(
  hash: 'md5' | 'sha1' | 'sha256' | 'sha384' | 'sha512' = 'sha256',
  bitCount = 2048,
): SigningKey {
  const pair = generateKeyPairSync('rsa', { modulusLength: bitCount });
  const last = { md5: 4, sha1: 5, sha256: 11, sha384: 12, sha512: 13 }[hash];
  return {
    ...pair,
    algorithm: sequence(oid(`1.2.840.113549.1.1.${last}`), nothing),
    sign: (data) => sign(hash, data, pair.privateKey),
  };
}

/** The same key, signing with RSASSA-PSS. */
export function pssKey(key: SigningKey, salt = 32, maskHash: 1 | 2 = 1): SigningKey {
  const hashOf = (last: number): Buffer => sequence(oid(`2.16.840.1.101.3.4.2.${last}`), nothing);
  const parameters = sequence(
    der(0xa0, hashOf(1)),
    der(0xa1, sequence(oid('1.2.840.113549.1.1.8'), hashOf(maskHash))),
    der(0xa2, integer(salt)),
  );
  return {
    ...key,
    algorithm: sequence(oid('1.2.840.113549.1.1.10'), parameters),
    sign: (data) =>
      sign('sha256', data, {
        key: key.privateKey,
        padding: constants.RSA_PKCS1_PSS_PADDING,
        saltLength: salt,
      }),
  };
}

export function ecKey(
  namedCurve: 'P-224' | 'P-256' | 'P-384' | 'P-521' | 'secp256k1' = 'P-256',
  hash: 'sha1' | 'sha256' | 'sha384' | 'sha512' = 'sha256',
): SigningKey {
  const pair = generateKeyPairSync('ec', { namedCurve });
  const last = { sha1: '1', sha256: '3.2', sha384: '3.3', sha512: '3.4' }[hash];
  return {
    ...pair,
    algorithm: sequence(oid(`1.2.840.10045.4.${last}`)),
    sign: (data) => sign(hash, data, pair.privateKey),
  };
}

export function edKey(): SigningKey {
  const pair = generateKeyPairSync('ed25519');
  return {
    ...pair,
    algorithm: sequence(oid('1.3.101.112')),
    sign: (data) => sign(null, data, pair.privateKey),
  };
}

export type Template = Readonly<{
  key: SigningKey;
  subject?: Buffer;
  /** Signs it; its own subject signs itself. */
  issuer?: Readonly<{ key: SigningKey; subject: Buffer }>;
  extensions?: readonly Buffer[];
  serial?: Buffer;
  version?: 1 | 2 | 3;
  notBefore?: Buffer;
  notAfter?: Buffer;
  /** In place of that of the key. */
  spki?: Buffer;
}>;

export const spkiOf = (key: SigningKey): Buffer => key.publicKey.export({ type: 'spki', format: 'der' });

export const keyId = (key: SigningKey): Buffer => createHash('sha1').update(spkiOf(key)).digest();

export const utcTime = (text: string): Buffer => der(0x17, Buffer.from(text));
export const generalizedTime = (text: string): Buffer => der(0x18, Buffer.from(text));

/** A certificate in DER (RFC 5280 §4.1) with exactly these parts. */
export function certificate(template: Template): Buffer {
  const { key, subject = name(['2.5.4.3', 'leaf']), extensions = [], version = 3 } = template;
  const issuer = template.issuer ?? { key, subject };
  const tbs = sequence(
    ...(version === 1 ? [] : [der(0xa0, integer(version - 1))]),
    template.serial ?? integer(0x1234_5678_9abc_def0_1234n),
    issuer.key.algorithm,
    issuer.subject,
    sequence(template.notBefore ?? utcTime('240101000000Z'), template.notAfter ?? utcTime('490101000000Z')),
    subject,
    template.spki ?? spkiOf(key),
    ...(extensions.length === 0 ? [] : [der(0xa3, sequence(...extensions))]),
  );
  return sequence(tbs, issuer.key.algorithm, bits(issuer.key.sign(tbs)));
}

/** A certificate request (RFC 2986). */
export function certificateRequest(key: SigningKey, subject: Buffer, attributes: readonly Buffer[]): Buffer {
  const info = sequence(integer(0), subject, spkiOf(key), der(0xa0, ...attributes));
  return sequence(info, key.algorithm, bits(key.sign(info)));
}

export function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
