import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { parseDocument, stringify } from '../../runtime/yaml.ts';
import { type Builtins, boundedText, maxText, refuse, text } from './args.ts';
import { formatValue, isExact, numberOf, toJson, type Value } from './value.ts';

const maxAliases = 100;

/** `yaml.*`: one document of YAML 1.2. */
export const yamlBuiltins: Builtins = {
  'yaml.is_valid': ([written = null]) => {
    if (typeof written !== 'string') return false;
    try {
      unmarshal(written);
      return true;
    } catch (error) {
      if (error instanceof MalformedError) return false;
      throw error;
    }
  },
  'yaml.unmarshal': (args) => unmarshal(text(args, 0)),
  'yaml.marshal': ([value = null]) => boundedText(stringify(plain(toJson(value)), { lineWidth: 0 })),
};

function unmarshal(written: string): Value {
  if (written.length > maxText) throw new LimitError('YAML is too long');
  const document = parseDocument(written, { schema: 'core', intAsBigInt: true, stringKeys: true });
  if (document.errors.length > 0) return refuse('text is not YAML');
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: maxAliases, mapAsMap: true });
  } catch (error) {
    throw new MalformedError('text is not YAML', { cause: error });
  }
  return fromJs(value);
}

function fromJs(value: unknown): Value {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'bigint') return numberOf(value.toString());
  if (typeof value === 'number')
    return Number.isFinite(value) ? value : refuse('YAML has an infinite number');
  if (Array.isArray(value)) return value.map(fromJs);
  if (value instanceof Map) {
    return new Map([...(value as Map<unknown, unknown>)].map(([key, one]) => [String(key), fromJs(one)]));
  }
  return refuse('YAML has a value that JSON has not');
}

/** As the package writes it: keys in order, exact numbers as they are. */
function plain(value: Value): unknown {
  if (isExact(value)) return /^-?\d+$/.test(value.number) ? BigInt(value.number) : Number(value.number);
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) {
    const pairs = [...(value as ReadonlyMap<string, Value>)].sort(([a], [b]) => (a < b ? -1 : 1));
    return new Map(pairs.map(([key, one]) => [key, plain(one)]));
  }
  return value instanceof Set ? formatValue(value) : value;
}
