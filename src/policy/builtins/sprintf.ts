import { LimitError } from '../../runtime/errors.ts';
import { type Builtins, boundedText, codePoints, list, maxText, refuse, text } from './args.ts';
import { formatFloat } from './format-float.ts';
import { formatValue, numberText, sorted, type Value } from './value.ts';

/** `sprintf`, by the rules of Go's fmt for what OPA hands it: integers, floats and texts. */
export const sprintfBuiltins: Builtins = {
  sprintf: (args) => {
    const items = list(args, 1).map(argumentOf);
    return boundedText(format(text(args, 0), items));
  },
};

type Argument =
  | Readonly<{ kind: 'integer'; type: 'int64' | '*big.Int'; value: bigint }>
  | Readonly<{ kind: 'float'; type: 'float64'; value: number }>
  | Readonly<{ kind: 'text'; type: 'string'; value: string }>;

type Flags = Readonly<{
  minus: boolean;
  plus: boolean;
  sharp: boolean;
  space: boolean;
  zero: boolean;
  width: number | undefined;
  precision: number | undefined;
}>;

function argumentOf(value: Value): Argument {
  const written = numberText(value);
  if (written === undefined) {
    return { kind: 'text', type: 'string', value: typeof value === 'string' ? value : regoText(value) };
  }
  if (/[.eE]/.test(written)) return { kind: 'float', type: 'float64', value: Number(written) };
  const integer = BigInt(written);
  return {
    kind: 'integer',
    type: BigInt.asIntN(64, integer) === integer ? 'int64' : '*big.Int',
    value: integer,
  };
}

/** A value as OPA prints it: `{"a": [1, true]}`. */
function regoText(value: Value): string {
  if (typeof value === 'string') return goQuote(value);
  if (Array.isArray(value)) return `[${value.map(regoText).join(', ')}]`;
  if (value instanceof Set) {
    return value.size === 0
      ? 'set()'
      : `{${sorted([...value])
          .map(regoText)
          .join(', ')}}`;
  }
  if (value instanceof Map) {
    const object = value as ReadonlyMap<Value, Value>;
    const pairs = sorted([...object.keys()]).map(
      (key) => `${regoText(key)}: ${regoText(object.get(key) ?? null)}`,
    );
    return `{${pairs.join(', ')}}`;
  }
  return formatValue(value);
}

const escapes: Readonly<Record<string, string>> = {
  '\x07': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
  '\\': '\\\\',
  '"': '\\"',
};

function goQuote(value: string, ascii = false): string {
  const quoted = value.replace(/[\s\S]/gu, (char) => {
    const escape = escapes[char];
    if (escape !== undefined) return escape;
    const point = char.codePointAt(0) ?? 0;
    if (char === ' ' || (/[\p{L}\p{M}\p{N}\p{P}\p{S}]/u.test(char) && !(ascii && point > 126))) return char;
    if (point < 0x80) return `\\x${point.toString(16).padStart(2, '0')}`;
    return point > 0xffff
      ? `\\U${point.toString(16).padStart(8, '0')}`
      : `\\u${point.toString(16).padStart(4, '0')}`;
  });
  return `"${quoted}"`;
}

const directive =
  /%(?<flags>[-+# 0]*)(?:\[(?<at>\d+)\])?(?<width>\d+|\*)?(?:\.(?:\[(?<atPrecision>\d+)\])?(?<precision>\d+|\*)?(?<dot>))?(?:\[(?<atVerb>\d+)\])?(?<verb>[\s\S])?/gu;

function format(template: string, items: readonly Argument[]): string {
  let next = 0;
  let jumped = false;
  let badIndex = false;
  let length = 0;
  const jump = (index: string | undefined): void => {
    if (index === undefined) return;
    jumped = true;
    if (Number(index) < 1 || Number(index) > items.length) badIndex = true;
    else next = Number(index) - 1;
  };
  const size = (written: string | undefined): number | undefined => {
    if (written === undefined) return undefined;
    const star = written === '*' ? items[next++] : undefined;
    if (written === '*' && star?.kind !== 'integer') return undefined;
    const count = Number(star?.value ?? written);
    if (Math.abs(count) > 1e6) return refuse('width or precision of sprintf is too large');
    return count;
  };
  const written = template.replace(directive, (...match: unknown[]) => {
    const groups = match.at(-1) as Record<string, string | undefined>;
    badIndex = false;
    jump(groups['at']);
    const width = size(groups['width']);
    jump(groups['atPrecision']);
    const precision = groups['dot'] === undefined ? undefined : (size(groups['precision']) ?? 0);
    jump(groups['atVerb']);
    const verb = groups['verb'];
    if (verb === undefined) return '%!(NOVERB)';
    if (verb === '%') return '%';
    if (badIndex) return `%!${verb}(BADINDEX)`;
    const item = items[next++];
    if (item === undefined) return `%!${verb}(MISSING)`;
    const flags = groups['flags'] ?? '';
    const minus = flags.includes('-') || (width ?? 0) < 0;
    const result = apply(item, verb, {
      minus,
      plus: flags.includes('+'),
      sharp: flags.includes('#'),
      space: flags.includes(' '),
      zero: flags.includes('0') && !minus,
      width: width === undefined ? undefined : Math.abs(width),
      precision: precision !== undefined && precision < 0 ? undefined : precision,
    });
    length += result.length;
    if (length > maxText) throw new LimitError('sprintf gave a text that is too long');
    return result;
  });
  const extra = jumped ? [] : items.slice(next);
  if (extra.length === 0) return written;
  const shown = extra.map((item) => `${item.type}=${plain(item)}`);
  return `${written}%!(EXTRA ${shown.join(', ')})`;
}

function plain(item: Argument): string {
  return item.kind === 'float' ? floatText(item.value, 'g', undefined, '') : String(item.value);
}

function apply(item: Argument, verb: string, flags: Flags): string {
  if (verb === 'T') return pad(item.type, flags);
  const done =
    item.kind === 'text'
      ? textVerb(item.value, verb, flags)
      : item.kind === 'integer'
        ? integerVerb(item.value, item.type, verb, flags)
        : floatVerb(item.value, verb, flags);
  return done ?? `%!${verb}(${item.type}=${apply(item, 'v', flags)})`;
}

function pad(body: string, { width, minus, zero }: Flags): string {
  const missing = (width ?? 0) - codePoints(body).length;
  if (missing <= 0) return body;
  return minus ? body + ' '.repeat(missing) : (zero ? '0' : ' ').repeat(missing) + body;
}

/** Zeros go between a sign and the digits. */
function padNumber(sign: string, digits: string, flags: Flags): string {
  const zeros = flags.zero ? Math.max(0, (flags.width ?? 0) - sign.length - digits.length) : 0;
  return pad(sign + '0'.repeat(zeros) + digits, { ...flags, zero: false });
}

function signOf(negative: boolean, { plus, space }: Flags): string {
  return negative ? '-' : plus ? '+' : space ? ' ' : '';
}

function textVerb(value: string, verb: string, flags: Flags): string | undefined {
  const cut = flags.precision === undefined ? value : codePoints(value).slice(0, flags.precision).join('');
  switch (verb) {
    case 'v':
      return pad(flags.sharp ? goQuote(cut) : cut, flags);
    case 's':
      return pad(cut, flags);
    case 'q':
      return pad(flags.sharp && !/[`\p{Cc}]/u.test(cut) ? `\`${cut}\`` : goQuote(cut, flags.plus), flags);
    case 'x':
    case 'X': {
      const bytes = Buffer.from(value).subarray(0, flags.precision ?? Infinity);
      const pairs = [...bytes].map((byte) => byte.toString(16).padStart(2, '0'));
      const prefix = flags.sharp && pairs.length > 0 ? '0x' : '';
      const joined = flags.space ? pairs.map((pair) => prefix + pair).join(' ') : prefix + pairs.join('');
      return pad(verb === 'X' ? joined.toUpperCase() : joined, flags);
    }
  }
  return undefined;
}

const bases: Readonly<Record<string, number>> = { b: 2, o: 8, O: 8, d: 10, v: 10, x: 16, X: 16 };
const prefixes: Readonly<Record<string, string>> = { b: '0b', o: '0', x: '0x', X: '0X' };

function integerVerb(value: bigint, type: string, verb: string, flags: Flags): string | undefined {
  const base = bases[verb] ?? (type === '*big.Int' && verb === 's' ? 10 : undefined);
  if (base === undefined) return type === 'int64' ? characterVerb(value, verb, flags) : undefined;
  let digits = (value < 0n ? -value : value).toString(base);
  if (verb === 'X') digits = digits.toUpperCase();
  const { precision } = flags;
  if (precision !== undefined)
    digits = precision === 0 && value === 0n ? '' : digits.padStart(precision, '0');
  const prefix = verb === 'O' ? '0o' : flags.sharp ? (prefixes[verb] ?? '') : '';
  const sign = signOf(value < 0n, flags) + prefix;
  return padNumber(sign, digits, precision === undefined ? flags : { ...flags, zero: false });
}

function characterVerb(value: bigint, verb: string, flags: Flags): string | undefined {
  const valid = value >= 0n && value <= 0x10ffffn && !(value >= 0xd800n && value <= 0xdfffn);
  const char = valid ? String.fromCodePoint(Number(value)) : '\ufffd';
  if (verb === 'c') return pad(char, flags);
  if (verb === 'q')
    return pad(`'${goQuote(char).slice(1, -1).replace("'", "\\'").replace('\\"', '"')}'`, flags);
  if (verb !== 'U') return undefined;
  const code = BigInt.asUintN(64, value).toString(16).toUpperCase().padStart(4, '0');
  return pad(`U+${code}${flags.sharp ? ` '${char}'` : ''}`, { ...flags, zero: false });
}

function floatText(
  value: number,
  verb: 'e' | 'f' | 'g',
  precision: number | undefined,
  plus: string,
): string {
  const negative = value < 0 || Object.is(value, -0);
  return (negative ? '-' : plus) + formatFloat(Math.abs(value), verb, precision);
}

function floatVerb(value: number, verb: string, flags: Flags): string | undefined {
  const kind = verb === 'v' ? 'g' : verb.toLowerCase();
  if (kind !== 'e' && kind !== 'f' && kind !== 'g') return undefined;
  const precision = flags.precision ?? (kind === 'g' ? undefined : 6);
  let digits = formatFloat(Math.abs(value), kind, precision);
  if (verb === 'E' || verb === 'G') digits = digits.toUpperCase();
  return padNumber(signOf(value < 0 || Object.is(value, -0), flags), digits, flags);
}
