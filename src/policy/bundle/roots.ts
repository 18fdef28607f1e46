import { MalformedError } from '../../runtime/errors.ts';

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
  // A segment has no slash, so a root above another one is a beginning of its text, and next to it in order.
  const owned = bundles
    .flatMap(({ name, roots }) =>
      roots.map((root) => ({ name, root, text: root.map((part) => `${part}/`).join('') })),
    )
    .sort((a, b) => (a.text < b.text ? -1 : Number(a.text > b.text)));
  for (const [index, { name, root, text }] of owned.entries()) {
    const above = owned[index - 1];
    if (above !== undefined && text.startsWith(above.text)) throw overlap(name, root, above.name, above.root);
  }
}

function overlap(name: string, root: DataPath, other: string, otherRoot: DataPath): MalformedError {
  const [a, b] = [formatPath(root), formatPath(otherRoot)];
  const everything =
    otherRoot.length === 0 ? ': a bundle without roots in its .manifest owns everything' : '';
  return new MalformedError(
    name === other
      ? `roots ${a} and ${b} of bundle ${name} overlap`
      : `root ${a} of bundle ${name} and root ${b} of bundle ${other} overlap${everything}`,
  );
}

function isPrefix(prefix: DataPath, path: DataPath): boolean {
  return prefix.length <= path.length && prefix.every((segment, index) => segment === path[index]);
}
