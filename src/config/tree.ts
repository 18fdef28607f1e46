/** Plain data as it came from a file, before the schema has seen it. */
export type Tree = { [key: string]: unknown };

/** A copy without null and undefined entries: an empty value in YAML means that the key is not set. */
export function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => (item === null ? null : withoutNulls(item)));
  if (!isTree(value)) return value;
  return fromEntries(
    Object.entries(value)
      .filter(([, child]) => child !== null && child !== undefined)
      .map(([key, child]) => [key, withoutNulls(child)]),
  );
}

/** A copy in which `path` (`admin.listen`) has `value`; unchanged where something that is no section is in the way. */
export function withValue(tree: unknown, path: readonly string[], value: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return value;
  if (tree !== undefined && !isTree(tree)) return tree;
  const child = tree !== undefined && Object.hasOwn(tree, key) ? tree[key] : undefined;
  return fromEntries([...Object.entries(tree ?? {}), [key, withValue(child, rest, value)]]);
}

/** What is at the path, or undefined. */
export function valueAt(tree: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((node, key) => {
    if (Array.isArray(node)) return typeof key === 'number' ? node[key] : undefined;
    return isTree(node) && Object.hasOwn(node, key) ? node[String(key)] : undefined;
  }, tree);
}

/** A copy without the entry at the path; a whole list goes when the path leads into it. */
export function withoutPath(tree: unknown, path: readonly PropertyKey[]): unknown {
  const [key, ...rest] = path;
  if (key === undefined || !isTree(tree)) return tree;
  const into = rest.length > 0 && isTree(tree[String(key)]);
  return fromEntries(
    Object.entries(tree).flatMap(([name, child]) => {
      if (name !== key) return [[name, child] as const];
      return into ? [[name, withoutPath(child, rest)] as const] : [];
    }),
  );
}

/** True for a mapping; lists and scalars are leaves. */
export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Object.fromEntries defines `__proto__` as an own key, so a file cannot reach a prototype with it. */
function fromEntries(entries: Iterable<readonly [string, unknown]>): Tree {
  return Object.fromEntries(entries);
}
