import { LimitError } from '../runtime/errors.ts';

/** What a stream has asked for: names, and for clients that name nothing, everything there is. */
export type Subscription = Readonly<{ everything: boolean; names: ReadonlySet<string> }>;

/** The name by which a delta client asks for everything. */
export const wildcard = '*';

/**
 * The subscription after a state-of-the-world request, which always carries the full list. Only a stream that has never
 * named anything means everything by an empty list; later an empty list is an unsubscribe, because otherwise a client
 * that lets go of its last secret would be sent every private key. A list of empty strings is not an empty list.
 */
export function replaceNames(previous: Subscription | undefined, names: readonly string[]): Subscription {
  const everything = names.length === 0 && (previous === undefined || previous.everything);
  return Object.freeze({ everything, names: new Set(names.filter((name) => name !== '')) });
}

/**
 * The subscription after a delta request. A first request without any name, or `*` in any, means everything until `*` is
 * unsubscribed; a name in both lists ends up unsubscribed. Throws LimitError beyond `maxNames`.
 */
export function changeNames(
  previous: Subscription | undefined,
  change: Readonly<{ subscribe: readonly string[]; unsubscribe: readonly string[] }>,
  maxNames: number,
): Subscription {
  const { subscribe, unsubscribe } = change;
  const legacyEverything = previous === undefined && subscribe.length === 0;
  const names = new Set(previous?.names);
  for (const name of subscribe) if (name !== '' && name !== wildcard) names.add(name);
  for (const name of unsubscribe) names.delete(name);
  if (names.size > maxNames) throw new LimitError(`stream subscribes to more than ${maxNames} names`);
  const everything = legacyEverything || (previous?.everything ?? false) || subscribe.includes(wildcard);
  return Object.freeze({ everything: everything && !unsubscribe.includes(wildcard), names });
}
