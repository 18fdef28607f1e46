import { refuse } from './args.ts';

/** A point in time as a clock on a wall of its zone shows it. */
export type CivilTime = Readonly<{
  year: number;
  month: number;
  day: number;
  hour: number;
  minute: number;
  second: number;
  nanosecond: number;
  /** Seconds east of UTC. */
  offset: number;
  /** Abbreviation of the zone, such as `CET`. */
  zone: () => string;
}>;

const months = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
] as const;
export const weekdays = [
  'Sunday',
  'Monday',
  'Tuesday',
  'Wednesday',
  'Thursday',
  'Friday',
  'Saturday',
] as const;

const namedLayouts: Readonly<Record<string, string>> = {
  ANSIC: 'Mon Jan _2 15:04:05 2006',
  UnixDate: 'Mon Jan _2 15:04:05 MST 2006',
  RubyDate: 'Mon Jan 02 15:04:05 -0700 2006',
  RFC822: '02 Jan 06 15:04 MST',
  RFC822Z: '02 Jan 06 15:04 -0700',
  RFC850: 'Monday, 02-Jan-06 15:04:05 MST',
  RFC1123: 'Mon, 02 Jan 2006 15:04:05 MST',
  RFC1123Z: 'Mon, 02 Jan 2006 15:04:05 -0700',
  RFC3339: '2006-01-02T15:04:05Z07:00',
  RFC3339Nano: '2006-01-02T15:04:05.999999999Z07:00',
};

// Go's reference time is Mon Jan 2 15:04:05 MST 2006; each of its parts stands for itself.
const parts =
  /January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|002|0[1-6]|15|2006|__2|_2(?!006)|[12345]|PM|pm|[-Z]07(?:0000|:00:00|00|:00)?|[.,](?:0+|9+)(?!\d)/g;

type Piece = Readonly<{ kind: 'text' | 'part'; text: string }>;

function cut(layout: string): readonly Piece[] {
  const full = Object.hasOwn(namedLayouts, layout) ? (namedLayouts[layout] ?? layout) : layout;
  const pieces: Piece[] = [];
  let at = 0;
  for (const { 0: part, index } of full.matchAll(parts)) {
    if (index > at) pieces.push({ kind: 'text', text: full.slice(at, index) });
    pieces.push({ kind: 'part', text: part });
    at = index + part.length;
  }
  if (at < full.length) pieces.push({ kind: 'text', text: full.slice(at) });
  return pieces;
}

/** Days since 1970 of a date, of any month and day number. */
export function dayNumber(year: number, month: number, day: number): number {
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  return date.getTime() / 86_400_000;
}

/** Writes a time in a layout of Go, or one of its named layouts. */
export function formatTime(time: CivilTime, layout: string): string {
  return cut(layout)
    .map(({ kind, text }) => (kind === 'text' ? text : formatPart(time, text)))
    .join('');
}

function pad(value: number, width: number, filler = '0'): string {
  return String(value).padStart(width, filler);
}

function formatPart(time: CivilTime, part: string): string {
  const { year, month, day, hour, minute, second, nanosecond, offset, zone } = time;
  const yearDay = dayNumber(year, month, day) - dayNumber(year, 1, 1) + 1;
  const weekday = weekdays[(((dayNumber(year, month, day) + 4) % 7) + 7) % 7] ?? 'Sunday';
  const monthName = months[month - 1] ?? '';
  const hour12 = hour % 12 === 0 ? 12 : hour % 12;
  switch (part) {
    case '2006':
      return pad(year, 4);
    case '06':
      return pad(year % 100, 2);
    case 'January':
      return monthName;
    case 'Jan':
      return monthName.slice(0, 3);
    case '1':
      return String(month);
    case '01':
      return pad(month, 2);
    case 'Monday':
      return weekday;
    case 'Mon':
      return weekday.slice(0, 3);
    case '2':
      return String(day);
    case '_2':
      return pad(day, 2, ' ');
    case '02':
      return pad(day, 2);
    case '__2':
      return pad(yearDay, 3, ' ');
    case '002':
      return pad(yearDay, 3);
    case '15':
      return pad(hour, 2);
    case '3':
      return String(hour12);
    case '03':
      return pad(hour12, 2);
    case '4':
      return String(minute);
    case '04':
      return pad(minute, 2);
    case '5':
      return String(second);
    case '05':
      return pad(second, 2);
    case 'PM':
      return hour >= 12 ? 'PM' : 'AM';
    case 'pm':
      return hour >= 12 ? 'pm' : 'am';
    case 'MST':
      return zone();
  }
  return /^[.,]/.test(part) ? formatFraction(nanosecond, part) : formatOffset(offset, part);
}

function formatFraction(nanosecond: number, part: string): string {
  const digits = pad(nanosecond, 9)
    .slice(0, part.length - 1)
    .padEnd(part.length - 1, '0');
  if (part.charAt(1) === '0') return part.charAt(0) + digits;
  const kept = digits.replace(/0+$/, '');
  return kept === '' ? '' : part.charAt(0) + kept;
}

function formatOffset(offset: number, part: string): string {
  if (part.startsWith('Z') && offset === 0) return 'Z';
  const size = Math.abs(offset);
  const [hours, minutes, seconds] = [Math.trunc(size / 3600), Math.trunc(size / 60) % 60, size % 60];
  const colon = part.includes(':') ? ':' : '';
  const fields = [hours, minutes, seconds].slice(0, part.replace(/\D/g, '').length / 2);
  return (offset < 0 ? '-' : '+') + fields.map((field) => pad(field, 2)).join(colon);
}

type Fields = {
  year: number;
  month: number | undefined;
  day: number | undefined;
  yearDay: number | undefined;
  hour: number;
  minute: number;
  second: number;
  nanosecond: number;
  offset: number;
  half: 'am' | 'pm' | undefined;
};

/** Reads a text in a layout of Go; nanoseconds since 1970. Throws MalformedError. */
export function parseTime(layout: string, value: string): bigint {
  const fields: Fields = {
    year: 0,
    month: undefined,
    day: undefined,
    yearDay: undefined,
    hour: 0,
    minute: 0,
    second: 0,
    nanosecond: 0,
    offset: 0,
    half: undefined,
  };
  let rest = value;
  const pieces = cut(layout);
  for (const [index, { kind, text }] of pieces.entries()) {
    if (kind === 'text') rest = skipText(rest, text);
    else rest = takePart(rest, text, fields, pieces[index + 1]?.text ?? '');
  }
  if (rest !== '') refuse('time has more text than its layout');
  return toNs(fields);
}

/** A space in the layout stands for any number of them. */
function skipText(value: string, text: string): string {
  let rest = value;
  for (const token of text.match(/ +|[^ ]/gu) ?? []) {
    if (token.startsWith(' ')) {
      if (rest !== '' && !rest.startsWith(' ')) refuse('time does not follow its layout');
      rest = rest.replace(/^ +/, '');
    } else {
      if (!rest.startsWith(token)) refuse('time does not follow its layout');
      rest = rest.slice(token.length);
    }
  }
  return rest;
}

function takePart(value: string, part: string, fields: Fields, next: string): string {
  let rest = value;
  const take = (pattern: RegExp): string => {
    const found = pattern.exec(rest)?.[0] ?? refuse('time does not follow its layout');
    rest = rest.slice(found.length);
    return found;
  };
  const number = (pattern: RegExp, low: number, high: number): number => {
    const found = Number(take(pattern));
    return found >= low && found <= high ? found : refuse('time has a part out of range');
  };
  const name = (names: readonly string[], length?: number): number => {
    const index = names.findIndex((one) => rest.toLowerCase().startsWith(one.slice(0, length).toLowerCase()));
    const found = names[index] ?? refuse('time has an unknown name');
    rest = rest.slice(found.slice(0, length).length);
    return index;
  };
  const one = /^\d{1,2}/;
  const two = /^\d\d/;
  switch (part) {
    case '2006':
      fields.year = number(/^\d{4}/, 0, 9999);
      return rest;
    case '06': {
      const short = number(two, 0, 99);
      fields.year = short >= 69 ? short + 1900 : short + 2000;
      return rest;
    }
    case 'January':
      fields.month = name(months) + 1;
      return rest;
    case 'Jan':
      fields.month = name(months, 3) + 1;
      return rest;
    case '1':
    case '01':
      fields.month = number(part === '1' ? one : two, 1, 12);
      return rest;
    case 'Monday':
      name(weekdays);
      return rest;
    case 'Mon':
      name(weekdays, 3);
      return rest;
    case '_2':
    case '2':
      if (part === '_2') rest = rest.replace(/^ /, '');
      fields.day = number(one, 0, 99);
      return rest;
    case '02':
      fields.day = number(two, 0, 99);
      return rest;
    case '__2':
    case '002':
      if (part === '__2') rest = rest.replace(/^ {1,2}/, (spaces) => '0'.repeat(spaces.length));
      fields.yearDay = number(/^\d{3}/, 1, 366);
      return rest;
    case '15':
      fields.hour = number(one, 0, 23);
      return rest;
    case '3':
    case '03':
      fields.hour = number(part === '3' ? one : two, 0, 12);
      return rest;
    case '4':
    case '04':
      fields.minute = number(part === '4' ? one : two, 0, 59);
      return rest;
    case '5':
    case '05':
      fields.second = number(part === '5' ? one : two, 0, 59);
      // A fraction may follow the seconds even where the layout has none.
      if (/^[.,]\d/.test(rest) && !/^[.,][09]/.test(next)) takeFraction();
      return rest;
    case 'PM':
    case 'pm':
      fields.half = take(part === 'PM' ? /^[AP]M/ : /^[ap]m/).toLowerCase() === 'pm' ? 'pm' : 'am';
      return rest;
    case 'MST':
      takeZone();
      return rest;
  }
  if (/^[.,]/.test(part)) {
    if (part.charAt(1) === '0') {
      const digits = take(new RegExp(`^[.,]\\d{${part.length - 1}}`)).slice(1);
      fields.nanosecond = Number(digits.slice(0, 9).padEnd(9, '0'));
    } else if (/^[.,]\d/.test(rest)) {
      takeFraction();
    }
    return rest;
  }
  if (part.startsWith('Z') && rest.startsWith('Z')) return rest.slice(1);
  fields.offset = takeOffset(part);
  return rest;

  function takeFraction(): void {
    fields.nanosecond = Number(
      take(/^[.,]\d+/)
        .slice(1, 10)
        .padEnd(9, '0'),
    );
  }

  /** An abbreviation says nothing here but UTC; Go, too, takes one that it does not know for an offset of 0. */
  function takeZone(): void {
    const gmt = /^GMT[+-]\d{1,2}/.exec(rest)?.[0];
    if (gmt !== undefined && Math.abs(Number(gmt.slice(3))) < 24) {
      rest = rest.slice(gmt.length);
      fields.offset = Number(gmt.slice(3)) * 3600;
      return;
    }
    take(/^(?:UTC|ChST|MeST|WITA|[A-Z]{3}ST|[A-Z]{3}T|[A-Z]{3}(?![A-Z]{3})|[+-]\d\d(?:\d\d)?)/);
  }

  function takeOffset(layout: string): number {
    const shape = layout.slice(1).replace(/00/g, '\\d\\d').replace('07', '\\d\\d');
    const digits = take(new RegExp(`^[+-]${shape}`));
    const [hours = 0, minutes = 0, seconds = 0] = (digits.match(/\d\d/g) ?? []).map(Number);
    if (hours > 24 || minutes > 60 || seconds > 60) refuse('time zone offset is out of range');
    return (digits.startsWith('-') ? -1 : 1) * (hours * 3600 + minutes * 60 + seconds);
  }
}

function toNs(fields: Fields): bigint {
  const { year, minute, second, nanosecond, offset, half } = fields;
  let { hour } = fields;
  if (half === 'pm' && hour < 12) hour += 12;
  else if (half === 'am' && hour === 12) hour = 0;
  let [month, day] = [fields.month ?? 1, fields.day ?? 1];
  if (fields.yearDay !== undefined) {
    const date = new Date(dayNumber(year, 1, fields.yearDay) * 86_400_000);
    if (date.getUTCFullYear() !== year) refuse('day of the year is out of range');
    const found = [date.getUTCMonth() + 1, date.getUTCDate()] as const;
    if ((fields.month ?? found[0]) !== found[0] || (fields.day ?? found[1]) !== found[1]) {
      refuse('day of the year is of another date');
    }
    [month, day] = found;
  }
  const inMonth = dayNumber(year, month + 1, 1) - dayNumber(year, month, 1);
  if (day < 1 || day > inMonth) refuse('day is out of range');
  const seconds = dayNumber(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
  return BigInt(seconds) * 1_000_000_000n + BigInt(nanosecond);
}
