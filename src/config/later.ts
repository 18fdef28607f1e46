import { placeOf } from './place.ts';

/**
 * Keys of the product's contract that this version does not implement yet. They are refused by name, never silently
 * ignored: an operator who writes `verification_key` must not believe to be protected by it. `[]` stands for any list item.
 */
const laterKeys: ReadonlySet<string> = new Set(['policy.opa.push']);

/** True for a key path, with `[0]`-like indexes, that a later version of the program will know. */
export function isLaterKey(path: string): boolean {
  return laterKeys.has(placeOf(path));
}
