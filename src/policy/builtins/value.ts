import { MalformedError } from '../../runtime/errors.ts';

/** A number that JavaScript's own cannot hold without a change; its text is exact. */
export type ExactNumber = Readonly<{ number: string }>;

/** A Rego value. Objects are Maps, because their keys are values too. */
export type Value =
  | null
  | boolean
  | number
  | string
  | ExactNumber
  | readonly Value[]
  | ReadonlyMap<Value, Value>
  | ReadonlySet<Value>;

/** Deepest nesting that is read; beyond it the text is refused. */
const maxDepth = 2_000;

/** A number by its text: `12`, `-0.5`, `1e400`. */
export function numberOf(text: string): number | ExactNumber {
  const plain = Number(text);
  return String(plain) === text ? plain : Object.freeze({ number: text });
}

export function isExact(value: Value): value is ExactNumber {
  return typeof value === 'object' && value !== null && 'number' in value;
}

/** The text of a number, as JSON has it; undefined for another value. */
export function numberText(value: Value): string | undefined {
  if (typeof value === 'number') return plainText(value);
  return isExact(value) ? value.number : undefined;
}

function plainText(value: number): string {
  return Number.isInteger(value) && Math.abs(value) >= 1e21 ? BigInt(value).toString() : String(value);
}

/** Reads JSON, and the sets that Rego adds to it: `set()`, `{1, 2}`. Throws MalformedError. */
export function parseValue(text: string): Value {
  let at = 0;
  const fail = (): never => {
    throw new MalformedError('value is not readable');
  };
  const space = (): void => {
    while (at < text.length && ' \t\r\n'.includes(text.charAt(at))) at++;
  };
  const take = (token: string): boolean => {
    space();
    if (!text.startsWith(token, at)) return false;
    at += token.length;
    return true;
  };
  const scan = (pattern: RegExp): string => {
    pattern.lastIndex = at;
    const [found] = pattern.exec(text) ?? fail();
    at += found.length;
    return found;
  };
  const list = (close: string, item: () => void): void => {
    do item();
    while (take(','));
    if (!take(close)) fail();
  };
  const braces = (depth: number): Value => {
    const pairs = new Map<Value, Value>();
    const members = new Set<Value>();
    if (take('}')) return pairs;
    list('}', () => {
      const first = read(depth);
      if (take(':')) pairs.set(first, read(depth));
      else members.add(first);
    });
    if (pairs.size > 0 && members.size > 0) fail();
    return pairs.size > 0 ? pairs : members;
  };
  const read = (depth: number): Value => {
    if (depth > maxDepth) fail();
    space();
    const next = text.charAt(at);
    if (next === '"') return readString(scan(/"(?:[^"\\]|\\.)*"/sy));
    if (take('{')) return braces(depth + 1);
    if (take('[')) {
      const items: Value[] = [];
      if (!take(']')) list(']', () => void items.push(read(depth + 1)));
      return items;
    }
    if (take('null')) return null;
    if (take('true')) return true;
    if (take('false')) return false;
    if (take('set()')) return new Set();
    return numberOf(scan(/-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y));
  };
  const value = read(0);
  space();
  return at === text.length ? value : fail();
}

function readString(quoted: string): string {
  try {
    return JSON.parse(quoted) as string;
  } catch (error) {
    throw new MalformedError('text of a value is not readable', { cause: error });
  }
}

/** Text that `parseValue`, and the parser inside wasm, read back. */
export function formatValue(value: Value): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return JSON.stringify(value.toWellFormed());
  if (Array.isArray(value)) return `[${value.map(formatValue).join(',')}]`;
  if (value instanceof Set) {
    return value.size === 0 ? 'set()' : `{${[...value].map(formatValue).join(',')}}`;
  }
  if (value instanceof Map) {
    const pairs = [...(value as ReadonlyMap<Value, Value>)];
    return `{${pairs.map(([key, one]) => `${formatValue(key)}:${formatValue(one)}`).join(',')}}`;
  }
  return numberText(value) ?? 'null';
}

/** What `json.Marshal` would see: sets as sorted lists, keys as texts. */
export function toJson(value: Value): Value {
  if (value instanceof Set) return sorted([...value].map(toJson));
  if (Array.isArray(value)) return value.map(toJson);
  if (value instanceof Map) {
    const pairs = [...(value as ReadonlyMap<Value, Value>)];
    return new Map(
      pairs.map(([key, one]) => [typeof key === 'string' ? key : formatValue(toJson(key)), toJson(one)]),
    );
  }
  return value;
}

/** A JSON text as a value, numbers exact. Throws MalformedError. */
export function parseJson(text: string): Value {
  try {
    JSON.parse(text);
  } catch (error) {
    throw new MalformedError('text is not JSON', { cause: error });
  }
  return parseValue(text);
}

const ranks = ['null', 'boolean', 'number', 'string', 'array', 'object', 'set'] as const;

/** The type's name as Rego's `type_name` has it. */
export function typeOf(value: Value): (typeof ranks)[number] {
  if (value === null) return 'null';
  if (typeof value === 'boolean') return 'boolean';
  if (typeof value === 'string') return 'string';
  if (Array.isArray(value)) return 'array';
  if (value instanceof Map) return 'object';
  return value instanceof Set ? 'set' : 'number';
}

/** OPA's order of all values: below 0, 0 or above. */
export function compareValues(a: Value, b: Value): number {
  if (a === b) return 0;
  const type = typeOf(a);
  const rank = ranks.indexOf(type) - ranks.indexOf(typeOf(b));
  if (rank !== 0) return rank;
  if (type === 'number') return compareNumbers(numberText(a) ?? '0', numberText(b) ?? '0');
  if (type === 'string') return Buffer.compare(Buffer.from(a as string), Buffer.from(b as string));
  if (type === 'array') return compareLists(a as Value[], b as Value[]);
  if (type === 'set') return compareLists(sorted([...(a as Set<Value>)]), sorted([...(b as Set<Value>)]));
  if (type === 'object') return compareLists(flat(a as Map<Value, Value>), flat(b as Map<Value, Value>));
  return a === false ? -1 : 1;
}

export function sameValue(a: Value, b: Value): boolean {
  return compareValues(a, b) === 0;
}

export function sorted(values: readonly Value[]): Value[] {
  return [...values].sort(compareValues);
}

/** Without repeats, whatever they are made of. */
export function setOf(values: Iterable<Value>): ReadonlySet<Value> {
  const byText = new Map<string, Value>();
  for (const value of values) byText.set(canonical(value), value);
  return new Set(byText.values());
}

/** Equal values have equal texts. */
export function canonical(value: Value): string {
  if (value instanceof Set)
    return `{${sorted([...value])
      .map(canonical)
      .join(',')}}`;
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value instanceof Map) {
    const keys = sorted([...(value as ReadonlyMap<Value, Value>).keys()]);
    return `{${keys.map((key) => `${canonical(key)}:${canonical((value as ReadonlyMap<Value, Value>).get(key) ?? null)}`).join(',')}}`;
  }
  return formatValue(value);
}

function flat(object: ReadonlyMap<Value, Value>): Value[] {
  const keys = sorted([...object.keys()]);
  return keys.flatMap((key) => [key, object.get(key) ?? null]);
}

function compareLists(a: readonly Value[], b: readonly Value[]): number {
  for (const [index, one] of a.entries()) {
    const other = b[index];
    if (other === undefined) return 1;
    const order = compareValues(one, other);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function compareNumbers(a: string, b: string): number {
  if (/^-?\d+$/.test(a) && /^-?\d+$/.test(b)) {
    const difference = BigInt(a) - BigInt(b);
    return difference < 0n ? -1 : difference > 0n ? 1 : 0;
  }
  return Number(a) - Number(b);
}
