import { boundedCount, refuse } from './args.ts';
import { canonical, numberText, sameValue, setOf, type Value } from './value.ts';

type Path = readonly Value[];

/** Applies a JSON patch (RFC 6902), with Rego's sets and keys. Throws MalformedError for one that does not fit. */
export function applyPatch(source: Value, operations: readonly Value[]): Value {
  boundedCount(operations.length);
  let value: Value = source;
  for (const operation of operations) {
    if (!(operation instanceof Map)) return refuse('an operation of a patch must be an object');
    value = applyOne(value, operation as ReadonlyMap<Value, Value>);
  }
  return value;
}

function applyOne(source: Value, operation: ReadonlyMap<Value, Value>): Value {
  const path = pathOf(operation.get('path'));
  const value = (): Value => operation.get('value') ?? missing(operation, 'value');
  const op = operation.get('op');
  switch (typeof op === 'string' ? op : '') {
    case 'add':
      return insert(source, path, value());
    case 'remove':
      return remove(source, path);
    case 'replace':
      return insert(remove(source, path), path, value());
    case 'move': {
      const from = pathOf(operation.get('from'));
      return insert(remove(source, from), path, find(source, from));
    }
    case 'copy':
      return insert(source, path, find(source, pathOf(operation.get('from'))));
    case 'test':
      return sameValue(find(source, path), value()) ? source : refuse('test of a patch failed');
    default:
      return refuse('operation of a patch is unknown');
  }
}

function missing(operation: ReadonlyMap<Value, Value>, name: string): Value {
  return operation.has(name) ? null : refuse(`operation of a patch has no ${name}`);
}

function pathOf(value: Value | undefined): Path {
  if (Array.isArray(value)) return value as Path;
  if (typeof value !== 'string') return refuse('path of a patch must be a text or a list');
  if (value === '') return [];
  const segments = value.replace(/^\/+/, '').split('/');
  return segments.map((one) => one.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function find(value: Value, path: Path): Value {
  return path.reduce(child, value);
}

function child(value: Value, key: Value): Value {
  if (Array.isArray(value)) return (value as readonly Value[])[indexOf(value, key, value.length - 1)] ?? null;
  if (value instanceof Map) {
    const found = keyIn(value, key);
    return found === undefined ? refuse('path of a patch leads nowhere') : (value.get(found.key) ?? null);
  }
  if (value instanceof Set && hasMember(value, key)) return key;
  return refuse('path of a patch leads nowhere');
}

function keyIn(value: ReadonlyMap<Value, Value>, key: Value): { key: Value } | undefined {
  if (value.has(key)) return { key };
  if (typeof key !== 'object' || key === null) return undefined;
  const wanted = canonical(key);
  for (const one of value.keys()) if (canonical(one) === wanted) return { key: one };
  return undefined;
}

function hasMember(value: ReadonlySet<Value>, member: Value): boolean {
  return setOf([...value, member]).size === value.size;
}

function indexOf(value: readonly Value[], key: Value, last: number): number {
  const written = typeof key === 'string' ? key : numberText(key);
  if (written === undefined || !/^(?:0|[1-9]\d*)$/.test(written))
    return refuse('index of a patch is invalid');
  return Number(written) <= last ? Number(written) : refuse(`index is beyond ${value.length} elements`);
}

/** Changes the holder of the path's last segment. */
function change(source: Value, path: Path, edit: (holder: Value, key: Value) => Value): Value {
  const [key = null, ...rest] = path;
  if (rest.length === 0) return edit(source, key);
  const inner = change(child(source, key), rest, edit);
  if (Array.isArray(source)) {
    return (source as readonly Value[]).with(indexOf(source, key, source.length - 1), inner);
  }
  if (source instanceof Map) return new Map(source).set(keyIn(source, key)?.key ?? key, inner);
  const others = [...(source as ReadonlySet<Value>)].filter((one) => !sameValue(one, key));
  return setOf([...others, inner]);
}

function insert(source: Value, path: Path, value: Value): Value {
  if (path.length === 0) return value;
  return change(source, path, (holder, key) => {
    if (Array.isArray(holder)) {
      const at = key === '-' ? holder.length : indexOf(holder, key, holder.length);
      return (holder as readonly Value[]).toSpliced(at, 0, value);
    }
    if (holder instanceof Map) return new Map(holder).set(keyIn(holder, key)?.key ?? key, value);
    if (!(holder instanceof Set)) return refuse('path of a patch leads nowhere');
    return sameValue(key, value) ? setOf([...holder, value]) : refuse('member of a set is its own key');
  });
}

function remove(source: Value, path: Path): Value {
  if (path.length === 0) return null;
  return change(source, path, (holder, key) => {
    if (Array.isArray(holder)) {
      return (holder as readonly Value[]).toSpliced(indexOf(holder, key, holder.length - 1), 1);
    }
    child(holder, key);
    if (holder instanceof Map) {
      const rest = new Map(holder);
      rest.delete(keyIn(holder, key)?.key ?? key);
      return rest;
    }
    return new Set([...(holder as ReadonlySet<Value>)].filter((one) => !sameValue(one, key)));
  });
}
