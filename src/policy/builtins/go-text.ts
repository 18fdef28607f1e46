import { refuse } from './args.ts';

/**
 * Bytes as the text that Go's JSON makes of them: one replacement character for each byte that is no UTF-8, where Node's
 * decoder takes several together.
 */
export function textOfBytes(bytes: Buffer): string {
  if (bytes.every((byte) => byte < 0x80)) return bytes.toString('latin1');
  const whole = bytes.toString('utf8');
  if (!whole.includes('\ufffd')) return whole;
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const size = sizeOfCharacter(bytes, at);
    text += size === 0 ? '\ufffd' : bytes.toString('utf8', at, at + size);
    at += Math.max(size, 1);
  }
  return text;
}

/** The bytes of the character that starts there; 0 when none does. */
function sizeOfCharacter(bytes: Buffer, at: number): number {
  const first = bytes[at] ?? 0;
  const size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (size === 1) return 1;
  const decoded = bytes.toString('utf8', at, at + size);
  return Buffer.byteLength(decoded) === size && Buffer.from(decoded).equals(bytes.subarray(at, at + size))
    ? size
    : 0;
}

/** Base64 with its padding; line ends are skipped, nothing else is. Throws MalformedError. */
export function decodeBase64(written: string): Buffer {
  const symbols = written.replaceAll(/[\r\n]/g, '');
  if (symbols.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(symbols)) return refuse('text is no base64');
  return Buffer.from(symbols, 'base64');
}
