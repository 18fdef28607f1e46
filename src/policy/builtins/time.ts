import { type Builtins, list, refuse, smallInteger, text, whole } from './args.ts';
import { type CivilTime, dayNumber, formatTime, parseTime, weekdays } from './time-layout.ts';
import { civilTime, createZones, fromLocal, utc, type Zone } from './time-zone.ts';
import { numberText, type Value } from './value.ts';

type Moment = Readonly<{ ns: bigint; zone: Zone; layout: string }>;

const [minInt64, maxInt64] = [-0x8000_0000_0000_0000n, 0x7fff_ffff_ffff_ffffn];

const unitNs: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
  d: 86_400e9,
  w: 604_800e9,
  y: 31_536_000e9,
};

/** `time.*`: nanoseconds since 1970 as int64, zones from the IANA database of this Node. */
export function createTimeBuiltins(): Builtins {
  const zoneOf = createZones();

  /** `ns`, `[ns]`, `[ns, zone]` or `[ns, zone, layout]`. */
  function moment(args: readonly Value[], index: number): Moment {
    const parts = Array.isArray(args[index]) ? list(args, index) : [args[index] ?? null];
    const ns = nanoseconds(parts[0] ?? null);
    const zone = parts.length > 1 ? zoneOf(text(parts, 1)) : utc;
    return { ns, zone, layout: parts.length > 2 ? text(parts, 2) : '' };
  }

  function civil(args: readonly Value[]): CivilTime {
    const { ns, zone } = moment(args, 0);
    return civilTime(ns, zone);
  }

  return {
    'time.now_ns': (_args, { nowNs }) => whole(nowNs),
    'time.parse_ns': (args) => safeNs(parseTime(text(args, 0), text(args, 1))),
    'time.parse_rfc3339_ns': (args) => safeNs(parseTime('RFC3339', text(args, 0))),
    'time.parse_duration_ns': (args) => whole(parseDuration(text(args, 0))),
    'time.format': (args) => {
      const { ns, zone, layout } = moment(args, 0);
      return formatTime(civilTime(ns, zone), layout === '' ? 'RFC3339Nano' : layout);
    },
    'time.date': (args) => {
      const { year, month, day } = civil(args);
      return [year, month, day];
    },
    'time.clock': (args) => {
      const { hour, minute, second } = civil(args);
      return [hour, minute, second];
    },
    'time.weekday': (args) => {
      const { year, month, day } = civil(args);
      return weekdays[(((dayNumber(year, month, day) + 4) % 7) + 7) % 7] ?? 'Sunday';
    },
    'time.add_date': (args) => {
      const { ns, zone } = moment(args, 0);
      const [years, months, days] = [smallInteger(args, 1), smallInteger(args, 2), smallInteger(args, 3)];
      const start = civilTime(ns, zone);
      const day = dayNumber(start.year + years, start.month + months, start.day + days);
      if (!Number.isFinite(day)) return refuse('time is out of range');
      const local = day * 86_400 + start.hour * 3600 + start.minute * 60 + start.second;
      if (Math.abs(local) > 1e11) return refuse('time is out of range');
      return safeNs(BigInt(fromLocal(local, zone)) * 1_000_000_000n + BigInt(start.nanosecond));
    },
    'time.diff': (args) => {
      const [first, second] = [moment(args, 0), moment(args, 1)];
      const [from, to] = first.ns <= second.ns ? [first.ns, second.ns] : [second.ns, first.ns];
      return difference(civilTime(from, first.zone), civilTime(to, first.zone));
    },
  };
}

function nanoseconds(value: Value): bigint {
  const written = numberText(value);
  if (written === undefined) return refuse('time must be a number of nanoseconds');
  const exact = /^-?\d+$/.test(written) ? BigInt(written) : wholeOf(Number(written));
  return exact >= minInt64 && exact <= maxInt64 ? exact : refuse('timestamp is too big');
}

function wholeOf(value: number): bigint {
  return Number.isInteger(value) ? BigInt(value) : refuse('timestamp is not whole');
}

function safeNs(ns: bigint): Value {
  return ns >= minInt64 && ns <= maxInt64 ? whole(ns) : refuse('time outside of valid range');
}

/** `1h30m`, `-1.5s`, with days, weeks and years of a fixed length beside Go's units. */
function parseDuration(written: string): bigint {
  const sign = /^[+-]/.exec(written)?.[0] ?? '';
  const rest = written.slice(sign.length);
  if (rest === '0') return 0n;
  const segments = [...rest.matchAll(/(?<amount>\d+\.?\d*|\.\d+)(?<unit>ns|us|µs|μs|ms|[smhdwy])/gy)];
  const length = segments.reduce((sum, { 0: segment }) => sum + segment.length, 0);
  if (rest === '' || length !== rest.length) return refuse('duration is invalid');
  let total = 0n;
  for (const { groups } of segments) {
    const [before = '', after = ''] = (groups?.['amount'] ?? '').split('.');
    const unit = BigInt(unitNs[groups?.['unit'] ?? ''] ?? 0);
    const fraction = after.slice(0, 18);
    total += BigInt(before || '0') * unit + (BigInt(fraction || '0') * unit) / 10n ** BigInt(fraction.length);
  }
  if (sign === '-') total = -total;
  return total >= minInt64 && total <= maxInt64 ? total : refuse('duration is out of range');
}

/** Years, months, days, hours, minutes, seconds between two times of one zone, the earlier first. */
function difference(from: CivilTime, to: CivilTime): Value {
  const borrow = (value: number, size: number): [number, number] =>
    value < 0 ? [value + size, 1] : [value, 0];
  const [second, minuteLess] = borrow(to.second - from.second, 60);
  const [minute, hourLess] = borrow(to.minute - from.minute - minuteLess, 60);
  const [hour, dayLess] = borrow(to.hour - from.hour - hourLess, 24);
  const inMonth = dayNumber(from.year, from.month + 1, 1) - dayNumber(from.year, from.month, 1);
  const [day, monthLess] = borrow(to.day - from.day - dayLess, inMonth);
  const [month, yearLess] = borrow(to.month - from.month - monthLess, 12);
  return [to.year - from.year - yearLess, month, day, hour, minute, second];
}
