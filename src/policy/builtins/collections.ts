import {
  type Builtins,
  boundedCount,
  elements,
  integer,
  list,
  object,
  refuse,
  smallInteger,
  text,
  whole,
} from './args.ts';
import { applyPatch } from './json-patch.ts';
import { canonical, sameValue, setOf, type Value } from './value.ts';

/** `object.subset`, `json.patch`, `numbers.range_step`, `graph.reachable_paths`. */
export const collectionBuiltins: Builtins = {
  'object.subset': ([all = null, part = null]) =>
    subset(all, part, true) ?? refuse('operands of object.subset do not fit'),
  'json.patch': (args) => applyPatch(args[0] ?? null, list(args, 1)),
  'numbers.range_step': (args) => {
    const [from, to, step] = [integer(args, 0), integer(args, 1), integer(args, 2)];
    if (step <= 0n) return refuse('step must be positive');
    const size = from <= to ? to - from : from - to;
    const count = boundedCount(Number(size / step) + 1);
    const direction = from <= to ? step : -step;
    return Array.from({ length: count }, (_, index) => whole(from + direction * BigInt(index)));
  },
  'graph.reachable_paths': (args) => reachablePaths(object(args, 0), elements(args, 1)),
  'rand.intn': (args, { memory, random }) => {
    const [name, limit] = [text(args, 0), smallInteger(args, 1)];
    const size = Math.abs(limit);
    if (size === 0) return 0;
    const key = `rand.intn ${size} ${name}`;
    const drawn = memory.get(key) ?? Math.floor(random() * size);
    memory.set(key, drawn);
    return drawn;
  },
};

function subset(all: Value, part: Value, top = false): boolean | undefined {
  if (all instanceof Map && part instanceof Map) return objectSubset(all, part);
  if (all instanceof Set && part instanceof Set) return holdsAll([...all], [...part]);
  if (Array.isArray(all) && Array.isArray(part)) return holdsRun(all, part);
  if (top && Array.isArray(all) && part instanceof Set)
    return part.size === 0 ? false : holdsAll(all, [...part]);
  return undefined;
}

function objectSubset(all: ReadonlyMap<Value, Value>, part: ReadonlyMap<Value, Value>): boolean {
  const byKey = new Map([...all].map(([key, value]) => [canonical(key), value]));
  return [...part].every(([key, value]) => {
    const held = byKey.get(canonical(key));
    if (held === undefined) return false;
    return sameValue(held, value) || subset(held, value) === true;
  });
}

function holdsAll(all: readonly Value[], part: readonly Value[]): boolean {
  const held = new Set(all.map(canonical));
  return part.every((one) => held.has(canonical(one)));
}

/** The part stands somewhere in the array as it is. */
function holdsRun(all: readonly Value[], part: readonly Value[]): boolean {
  const [whole, wanted] = [all.map(canonical), part.map(canonical)];
  return (
    whole.some((_, start) => wanted.every((one, index) => whole[start + index] === one)) ||
    wanted.length === 0
  );
}

/** Every path from one of the nodes to an end or to a node that it has passed. */
function reachablePaths(graph: ReadonlyMap<Value, Value>, nodes: readonly Value[]): Value {
  const edges = new Map([...graph].map(([node, next]) => [canonical(node), neighbours(next)]));
  const paths: Value[][] = [];
  const add = (path: Value[]): void => {
    boundedCount(paths.push(path) * path.length);
  };
  const walk = (node: Value, path: readonly Value[], passed: ReadonlySet<string>): void => {
    const key = canonical(node);
    const next = edges.get(key);
    if (next === undefined) return add([...path]);
    const here = [...path, node];
    if (next.length === 0) return add(here);
    boundedCount(here.length * 500);
    const seen = new Set(passed).add(key);
    for (const one of next) {
      if (seen.has(canonical(one))) add(here);
      else walk(one, here, seen);
    }
  };
  for (const node of nodes) {
    const next = edges.get(canonical(node));
    if (next === undefined) continue;
    if (next.length === 0) add([node]);
    for (const one of next) walk(one, [node], new Set([canonical(node)]));
  }
  return setOf(paths);
}

function neighbours(value: Value): readonly Value[] {
  if (Array.isArray(value)) return value as readonly Value[];
  return value instanceof Set ? [...(value as ReadonlySet<Value>)] : [];
}
