import { MalformedError } from '../runtime/errors.ts';

/** A place in the data document, segment by segment; `[]` is all of it. */
export type DataPath = readonly string[];

/** Reads a root as OPA does: slashes at the ends do not count, and `''` is the whole document. */
export function parseRoot(text: string): DataPath {
  const trimmed = text.replaceAll(/^\/+|\/+$/g, '');
  return Object.freeze(trimmed === '' ? [] : trimmed.split('/'));
}

/** True when the path lies at or below one of the roots. */
export function rootsContain(roots: readonly DataPath[], path: DataPath): boolean {
  return roots.some((root) => isPrefix(root, path));
}

/** True when the path is on the way to one of the roots. */
export function leadsToRoot(roots: readonly DataPath[], path: DataPath): boolean {
  return roots.some((root) => isPrefix(path, root));
}

/** For messages; bounded, because it is as long as who made the bundle likes. */
export function formatPath(path: DataPath): string {
  return JSON.stringify(`/${path.join('/')}`.slice(0, 200));
}

/**
 * Each part of the data document belongs to one root of one bundle. Throws MalformedError that names the two that share
 * one.
 */
export function checkOverlap(
  bundles: readonly Readonly<{ name: string; roots: readonly DataPath[] }>[],
): void {
  const owners = new Map<string, string>();
  for (const { name, roots } of bundles) {
    for (const root of roots) {
      const key = JSON.stringify(root);
      const other = owners.get(key);
      if (other !== undefined) throw overlap(name, root, other, root);
      owners.set(key, name);
    }
  }
  for (const { name, roots } of bundles) {
    for (const root of roots) {
      for (let length = 0; length < root.length; length += 1) {
        const above = root.slice(0, length);
        const owner = owners.get(JSON.stringify(above));
        if (owner !== undefined) throw overlap(name, root, owner, above);
      }
    }
  }
}

function overlap(name: string, root: DataPath, other: string, otherRoot: DataPath): MalformedError {
  const [a, b] = [formatPath(root), formatPath(otherRoot)];
  return new MalformedError(
    name === other
      ? `roots ${a} and ${b} of bundle ${name} overlap`
      : `root ${a} of bundle ${name} and root ${b} of bundle ${other} overlap`,
  );
}

function isPrefix(prefix: DataPath, path: DataPath): boolean {
  return prefix.length <= path.length && prefix.every((segment, index) => segment === path[index]);
}
