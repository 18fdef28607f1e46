import { refuse } from './args.ts';
import type { CivilTime } from './time-layout.ts';

/** A time zone of the IANA database that this Node holds. */
export interface Zone {
  readonly name: string;
  /** Seconds east of UTC at a time given in seconds since 1970. */
  offsetAt(seconds: number): number;
  /** Abbreviation in use at that time. */
  abbreviationAt(seconds: number): string;
}

const nsPerSecond = 1_000_000_000n;
const maxZones = 64;
/** Each knows the abbreviations of its own part of the world. */
const locales = ['en-US', 'en-GB', 'en-AU', 'en-IN', 'en-ZA', 'en-NZ', 'ja-JP'] as const;

export const utc: Zone = Object.freeze({
  name: 'UTC',
  offsetAt: () => 0,
  abbreviationAt: () => 'UTC',
});

/** Finds zones by name and keeps some of them, because their making is slow. Throws MalformedError for an unknown one. */
export function createZones(): (name: string) => Zone {
  const known = new Map<string, Zone>();
  return (name) => {
    if (name === '' || name === 'UTC') return utc;
    const held = known.get(name);
    if (held !== undefined) return held;
    const zone = load(name);
    if (known.size >= maxZones) known.clear();
    known.set(name, zone);
    return zone;
  };
}

function load(name: string): Zone {
  // What Intl takes as well, but Go does not: offsets such as +01:00.
  if (name !== 'Local' && !/^[A-Za-z][\w+/-]*$/.test(name)) return refuse('time zone is unknown');
  const timeZone = name === 'Local' ? undefined : name;
  let clock: Intl.DateTimeFormat;
  try {
    clock = new Intl.DateTimeFormat('en-US', {
      timeZone,
      hourCycle: 'h23',
      era: 'short',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
  } catch {
    return refuse('time zone is unknown');
  }
  const offsetAt = (seconds: number): number => {
    const shown = Object.fromEntries(
      clock.formatToParts(seconds * 1000).map(({ type, value }) => [type, Number(value)]),
    );
    const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = shown;
    return Date.UTC(year, month - 1, day, hour, minute, second) / 1000 - seconds;
  };
  return Object.freeze({
    name,
    offsetAt,
    abbreviationAt(seconds: number) {
      if (name === 'GMT') return name;
      for (const locale of locales) {
        const parts = new Intl.DateTimeFormat(locale, { timeZone, timeZoneName: 'short' });
        const found = parts.formatToParts(seconds * 1000).find(({ type }) => type === 'timeZoneName')?.value;
        if (found !== undefined && /^[A-Z]{3,5}$/.test(found)) return found;
      }
      return numeric(offsetAt(seconds));
    },
  });
}

/** As the database names zones without a name: `-03`, `+0545`. */
function numeric(offset: number): string {
  const size = Math.abs(offset);
  const [hours, minutes] = [Math.trunc(size / 3600), Math.trunc(size / 60) % 60];
  const rest = minutes === 0 ? '' : String(minutes).padStart(2, '0');
  return `${offset < 0 ? '-' : '+'}${String(hours).padStart(2, '0')}${rest}`;
}

export function civilTime(ns: bigint, zone: Zone): CivilTime {
  const nanosecond = ((ns % nsPerSecond) + nsPerSecond) % nsPerSecond;
  const seconds = Number((ns - nanosecond) / nsPerSecond);
  const offset = zone.offsetAt(seconds);
  const date = new Date((seconds + offset) * 1000);
  return Object.freeze({
    year: date.getUTCFullYear(),
    month: date.getUTCMonth() + 1,
    day: date.getUTCDate(),
    hour: date.getUTCHours(),
    minute: date.getUTCMinutes(),
    second: date.getUTCSeconds(),
    nanosecond: Number(nanosecond),
    offset,
    zone: () => zone.abbreviationAt(seconds),
  });
}

/**
 * Seconds since 1970 at which a zone's clock shows `local` (seconds as if in UTC). Where a clock is put forward or back
 * it takes, as Go does, the offset that is in force at the time that the first guess comes to.
 */
export function fromLocal(local: number, zone: Zone): number {
  const guess = zone.offsetAt(local);
  return guess === 0 ? local : local - zone.offsetAt(local - guess);
}
