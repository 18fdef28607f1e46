import { isTree } from './tree.ts';

/** The key paths whose values differ between two configurations in the file's terms; lists are compared whole. */
export function changedKeys(before: unknown, after: unknown, path = ''): readonly string[] {
  if (isTree(before) && isTree(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
    return keys.flatMap((key) => changedKeys(before[key], after[key], path === '' ? key : `${path}.${key}`));
  }
  return JSON.stringify(before) === JSON.stringify(after) ? [] : [path];
}
