import { LimitError, MalformedError } from '../runtime/errors.ts';

const alphabet = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/');
const newline = 0x0a;
const pad = 0x3d;
const block = /-----BEGIN ([A-Z0-9 ]{1,40})-----([^-]*)-----END \1-----/g;
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/**
 * One PEM block (RFC 7468) with lines of 64 columns and a newline behind. Written byte by byte: a private key passes
 * through here and must not become a string, which nothing could ever wipe.
 */
export function encodePem(label: string, der: Buffer): Buffer {
  const begin = Buffer.from(`-----BEGIN ${label}-----\n`);
  const end = Buffer.from(`-----END ${label}-----\n`);
  const symbols = Math.ceil(der.length / 3) * 4;
  const body = Buffer.alloc(symbols + Math.ceil(symbols / 64));
  let at = 0;
  for (let i = 0; i < der.length; i += 3) {
    const left = der.length - i;
    const word = ((der[i] ?? 0) << 16) | ((der[i + 1] ?? 0) << 8) | (der[i + 2] ?? 0);
    body[at++] = alphabet[word >> 18] ?? pad;
    body[at++] = alphabet[(word >> 12) & 63] ?? pad;
    body[at++] = left > 1 ? (alphabet[(word >> 6) & 63] ?? pad) : pad;
    body[at++] = left > 2 ? (alphabet[word & 63] ?? pad) : pad;
    if (i % 48 === 45 || left <= 3) body[at++] = newline;
  }
  return Buffer.concat([begin, body, end]);
}

/**
 * The DER inside every block of `pem`, all of which must have `label`; text between blocks is skipped. Throws
 * MalformedError for another label, broken base64, or text without any block, and LimitError beyond the bounds.
 */
export function decodePem(pem: string, label: string, maxCount: number, maxBytes: number): readonly Buffer[] {
  // Four symbols hold three bytes; half as much again leaves room for headers, line ends and explanatory text.
  if (pem.length > maxCount * maxBytes * 2)
    throw new LimitError(`PEM is longer than ${maxCount * maxBytes * 2} bytes`);
  const ders: Buffer[] = [];
  for (const [, found, text = ''] of pem.matchAll(block)) {
    if (found !== label) throw new MalformedError(`PEM has a block ${found}, only ${label} is expected`);
    if (ders.length >= maxCount) throw new LimitError(`PEM has more than ${maxCount} blocks`);
    const symbols = text.replaceAll(/[ \t\r\n]/g, '');
    if (symbols === '' || !base64.test(symbols))
      throw new MalformedError(`PEM has a ${label} block with broken base64`);
    ders.push(Buffer.from(symbols, 'base64'));
  }
  const begins = pem.split('-----BEGIN ').length - 1;
  if (begins !== ders.length) throw new MalformedError('PEM has a block that does not end as it began');
  if (ders.length === 0 && pem.trim() !== '') throw new MalformedError(`PEM has no ${label} block`);
  return ders;
}
