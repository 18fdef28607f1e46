import type { AllowDecision } from '../policy/decision.ts';
import { AppError } from '../runtime/errors.ts';
import { percentDecode } from './path-and-query.ts';

/**
 * A name or value as it may stand in a query string. Envoy writes what it is told as it is, so whatever would end the
 * parameter or the request line is escaped; `%` and `+` stay, because a policy may have escaped by itself.
 */
export function queryText(text: string, part: 'name' | 'value'): string {
  const escaped = text.toWellFormed().replace(/[^\x21\x24\x25\x27-\x3a\x3d\x3f-\x7e]+/g, encodeURIComponent);
  return part === 'name' ? escaped.replaceAll('=', '%3D') : escaped;
}

/**
 * The decision for a request with this path, query string included. To Envoy `%61dmin` and `admin` are two parameters, to
 * a server behind it they are one: every spelling that a client has used of a name that the policy removes or sets goes, too.
 */
export function withEverySpelling(decision: AllowDecision, path: string): AllowDecision {
  const { queryParametersToSet: set, queryParametersToRemove: remove } = decision;
  const mark = path.indexOf('?');
  if (mark === -1 || (set.length === 0 && remove.length === 0)) return decision;
  const told = new Set([...set.map(({ name }) => queryText(name, 'name')), ...remove]);
  const names = new Set([...told].map(meaningOf));
  const others = new Set<string>();
  for (const pair of path.slice(mark + 1).split('&')) {
    const equals = pair.indexOf('=');
    const name = equals === -1 ? pair : pair.slice(0, equals);
    if (!told.has(name) && names.has(meaningOf(name))) others.add(name);
  }
  return others.size === 0 ? decision : { ...decision, queryParametersToRemove: [...remove, ...others] };
}

function meaningOf(name: string): string {
  const spaced = name.replaceAll('+', ' ');
  try {
    return percentDecode(spaced, 'name');
  } catch (error) {
    if (error instanceof AppError) return spaced;
    throw error;
  }
}
