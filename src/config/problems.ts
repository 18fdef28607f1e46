import type { z } from 'zod';
import type { ConfigProblem } from '../runtime/errors.ts';
import type { Option } from './options.ts';
import { placeOf } from './place.ts';

/** The path of an issue in the form that messages use: `ext_authz.queries[0].path`. */
function keyPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`;
    return text === '' ? String(key) : `${text}.${String(key)}`;
  }, '');
}

/** One problem per offending key, in words for the operator. */
export function toProblems(issue: z.core.$ZodIssue, options: readonly Option[]): readonly ConfigProblem[] {
  const path = keyPath(issue.path);
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => unknownKey(keyPath([...issue.path, key]), key, path, options));
  }
  return [{ path, message: issue.message }];
}

/**
 * What is wrong with a value that may be a single section or a list of them, in the issues of the one it is; other issues
 * as they are.
 */
export function withoutUnions(
  issue: z.core.$ZodIssue,
  valueAt: (path: readonly PropertyKey[]) => unknown,
): readonly z.core.$ZodIssue[] {
  if (issue.code !== 'invalid_union') return [issue];
  const [section = [], list = []] = issue.errors;
  const inner = Array.isArray(valueAt(issue.path)) ? list : section;
  return inner.map((one) => ({ ...one, path: [...issue.path, ...one.path] }));
}

/** The error map of the schema: what to say of a value that has the wrong type or is out of bounds. */
export function messageFor(issue: z.core.$ZodRawIssue): string {
  if (issue.code === 'invalid_type') {
    return issue.input === undefined ? 'is required' : `must be ${wordFor(issue.expected)}`;
  }
  if (issue.code === 'invalid_value') return `must be one of ${issue.values.map(String).join(', ')}`;
  if (issue.code === 'too_small') return `must ${sizeOf(issue.origin, 'at least', issue.minimum)}`;
  if (issue.code === 'too_big') return `must ${sizeOf(issue.origin, 'at most', issue.maximum)}`;
  return 'must be plain data: text, numbers, true or false, lists and maps';
}

function wordFor(expected: string): string {
  const words: Readonly<Record<string, string>> = {
    object: 'a section with keys of its own',
    record: 'a map',
    array: 'a list',
    boolean: 'true or false',
    number: 'a whole number',
    int: 'a whole number',
    string: 'text; put it in quotes',
  };
  return words[expected] ?? `of type ${expected}`;
}

function sizeOf(origin: string, bound: string, limit: number | bigint): string {
  if (origin === 'array') return `have ${bound} ${limit} item${limit === 1 ? '' : 's'}`;
  if (origin === 'string') return `have ${bound} ${limit} characters`;
  return `be ${bound} ${limit}`;
}

function unknownKey(path: string, key: string, section: string, options: readonly Option[]): ConfigProblem {
  const place = placeOf(section);
  const siblings = options.filter((option) => parentOf(option.path) === place).map((o) => lastOf(o.path));
  const near = nearest(key, siblings);
  if (near !== undefined) return { path, message: `is not a known key; did you mean ${near}?` };
  const elsewhere = options.find((option) => lastOf(option.path) === key);
  if (elsewhere !== undefined) return { path, message: `is not a known key here; ${elsewhere.path} is` };
  return { path, message: `is not a known key; known here: ${siblings.join(', ')}` };
}

function parentOf(path: string): string {
  return path.includes('.') ? path.slice(0, path.lastIndexOf('.')) : '';
}

function lastOf(path: string): string {
  return path.slice(path.lastIndexOf('.') + 1);
}

/** The candidate that a slip of the hand may have meant: at most a third of its characters away. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  if (word.length > 64) return undefined;
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    const close = distance <= Math.max(1, Math.floor(candidate.length / 3));
    if (close && (best === undefined || distance < best.distance)) best = { candidate, distance };
  }
  return best?.candidate;
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
