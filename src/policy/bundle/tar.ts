import { LimitError, MalformedError } from '../../runtime/errors.ts';

/** A regular file of an archive; `bytes` is a view into the archive. */
export type TarFile = Readonly<{ path: string; bytes: Buffer }>;

const blockSize = 512;
const maxEntries = 10_000;

/**
 * The regular files of a tar archive (POSIX ustar with pax paths, which is what `opa build` writes), by their path
 * without leading slash or `./`. Directories, links and devices are passed over. Throws MalformedError, also for a path
 * that occurs twice or has an empty segment or one of dots (`.`, `..`), and LimitError for too many entries.
 */
export function readTar(archive: Buffer): readonly TarFile[] {
  const files: TarFile[] = [];
  const seen = new Set<string>();
  let longPath: string | undefined;
  let entries = 0;
  for (let at = 0; ; ) {
    if (at + blockSize > archive.length) throw new MalformedError('tar archive is cut off');
    const header = archive.subarray(at, at + blockSize);
    if (header.every((byte) => byte === 0)) return Object.freeze(files);
    entries += 1;
    if (entries > maxEntries) throw new LimitError(`tar archive has more than ${maxEntries} entries`);
    checkSum(header);
    const size = octal(header, 124, 12);
    const bytes = archive.subarray(at + blockSize, at + blockSize + size);
    if (bytes.length < size) throw new MalformedError('tar archive is cut off');
    at += blockSize + Math.ceil(size / blockSize) * blockSize;

    const type = String.fromCharCode(header[156] ?? 0);
    if (type === 'x') {
      longPath = paxPath(bytes);
      continue;
    }
    if (type === '0' || type === '\0') {
      const path = cleanPath(longPath ?? headerPath(header));
      if (seen.has(path)) throw new MalformedError(`tar archive holds ${quote(path)} twice`);
      seen.add(path);
      files.push(Object.freeze({ path, bytes }));
    }
    longPath = undefined;
  }
}

/** The header's sum with its own eight bytes counted as spaces. */
function checkSum(header: Buffer): void {
  let sum = 0;
  for (const [index, byte] of header.entries()) sum += index >= 148 && index < 156 ? 0x20 : byte;
  if (sum !== octal(header, 148, 8)) throw new MalformedError('tar header has a wrong checksum');
}

function octal(header: Buffer, at: number, length: number): number {
  const text = field(header, at, length).trim();
  if (!/^[0-7]{1,11}$/.test(text)) throw new MalformedError('tar header has a number that is not octal');
  return Number.parseInt(text, 8);
}

function headerPath(header: Buffer): string {
  const prefix = field(header, 257, 5) === 'ustar' ? field(header, 345, 155) : '';
  const name = field(header, 0, 100);
  return prefix === '' ? name : `${prefix}/${name}`;
}

function field(header: Buffer, at: number, length: number): string {
  const bytes = header.subarray(at, at + length);
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end === -1 ? length : end);
}

/** The `path` record of a pax extended header: lines of `LENGTH key=value\n`. */
function paxPath(bytes: Buffer): string | undefined {
  let path: string | undefined;
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(0x20, at);
    const digits = space === -1 ? '' : bytes.toString('latin1', at, space);
    const length = /^[1-9][0-9]{0,8}$/.test(digits) ? Number(digits) : 0;
    if (length <= digits.length + 1 || at + length > bytes.length || bytes[at + length - 1] !== 0x0a) {
      throw new MalformedError('tar archive has a malformed extended header');
    }
    const record = bytes.toString('utf8', space + 1, at + length - 1);
    if (record.startsWith('path=')) path = record.slice('path='.length);
    at += length;
  }
  return path;
}

function cleanPath(raw: string): string {
  const path = raw.replace(/^(?:\.?\/+)+/, '');
  // OPA would read another place from an empty segment or a dot.
  if (path.split('/').some((segment) => segment === '' || segment === '.' || segment === '..')) {
    throw new MalformedError(`tar archive has an unusable path ${quote(raw)}`);
  }
  return path;
}

function quote(path: string): string {
  return JSON.stringify(path.slice(0, 200));
}
