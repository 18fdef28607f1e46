import { MalformedError } from '../runtime/errors.ts';

const millisecondsPer: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const bytesPer: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
const maxTextLength = 64;

/** Parses a duration such as `10s`, `150ms` or `1h30m` into whole milliseconds. */
export function parseDuration(text: string): number {
  const parts = text.length > maxTextLength ? undefined : text.match(/\d+(?:\.\d+)?(?:ms|s|m|h)/g);
  if (!parts || parts.join('') !== text)
    throw new MalformedError('must be a duration such as 150ms, 10s or 1h');
  const total = parts.reduce((sum, part) => {
    const unit = part.replace(/^[\d.]+/, '');
    return sum + Number.parseFloat(part) * (millisecondsPer[unit] ?? Number.NaN);
  }, 0);
  const rounded = Math.round(total);
  if (!Number.isSafeInteger(rounded)) throw new MalformedError('is too long a duration');
  return rounded;
}

/** The shortest text that parseDuration reads back to the same milliseconds, in one unit. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0s';
  for (const unit of ['h', 'm', 's'] as const) {
    const size = millisecondsPer[unit] ?? 1;
    if (ms % size === 0) return `${ms / size}${unit}`;
  }
  return `${ms}ms`;
}

/** Parses a size such as `4MiB`, `64KiB` or `512B` into bytes. */
export function parseSize(text: string): number {
  const match = text.length > maxTextLength ? null : /^(\d+)(B|KiB|MiB|GiB)$/.exec(text);
  if (match === null) throw new MalformedError('must be a size such as 512B, 64KiB or 4MiB');
  const bytes = Number(match[1]) * (bytesPer[match[2] ?? ''] ?? Number.NaN);
  if (!Number.isSafeInteger(bytes)) throw new MalformedError('is too large a size');
  return bytes;
}

/** The text in the largest unit that leaves no remainder; parseSize reads it back to the same bytes. */
export function formatSize(bytes: number): string {
  for (const unit of ['GiB', 'MiB', 'KiB'] as const) {
    const size = bytesPer[unit] ?? 1;
    if (bytes > 0 && bytes % size === 0) return `${bytes / size}${unit}`;
  }
  return `${bytes}B`;
}

/** Parses the permission bits of a file, written in octal as chmod takes them: `0660`. */
export function parseMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text))
    throw new MalformedError('must be a file mode in octal, in quotes, such as "0660"');
  return Number.parseInt(text, 8);
}

export function formatMode(mode: number): string {
  return `0${mode.toString(8).padStart(3, '0')}`;
}
