/** What `:name` parts of a pattern took from the text. */
export type Captures = Readonly<Record<string, string>>;

/**
 * A pattern compiled once: literal text, `*` for any characters (also none, also `/`), and `:name` for one whole,
 * non-empty segment between slashes. Matching is anchored, on the text exactly as it came (URLPattern would normalize
 * dot segments), and takes at most pattern length × text length steps.
 */
export type QueryPattern = Readonly<{ names: readonly string[]; parts: readonly Part[] }>;

type Part =
  | Readonly<{ kind: 'literal'; text: string }>
  | Readonly<{ kind: 'segment'; name: string }>
  | Readonly<{ kind: 'any' }>;

const segmentName = /^:([A-Za-z_][A-Za-z0-9_]*)/;

/**
 * Compiles `text`. With `segments` false, a colon is an ordinary character. Returns a sentence when the pattern is wrong.
 */
export function compilePattern(text: string, segments: boolean): QueryPattern | string {
  const parts: Part[] = [];
  const names: string[] = [];
  let literal = '';
  const flush = (): void => {
    if (literal !== '') parts.push(Object.freeze({ kind: 'literal', text: literal }));
    literal = '';
  };
  for (let i = 0; i < text.length; ) {
    const at = text[i];
    if (at === '*') {
      flush();
      if (parts.at(-1)?.kind !== 'any') parts.push(Object.freeze({ kind: 'any' }));
      i += 1;
    } else if (segments && at === ':' && text[i - 1] === '/') {
      const name = segmentName.exec(text.slice(i))?.[1];
      const end = i + 1 + (name?.length ?? 0);
      if (name === undefined || (end < text.length && text[end] !== '/')) {
        return 'a :name stands for one whole segment between slashes';
      }
      if (names.includes(name)) return `:${name} stands there twice`;
      flush();
      parts.push(Object.freeze({ kind: 'segment', name }));
      names.push(name);
      i = end;
    } else {
      literal += at;
      i += 1;
    }
  }
  flush();
  return Object.freeze({ names: Object.freeze(names), parts: Object.freeze(parts) });
}

/** The captures when all of `text` fits, else undefined. */
export function matchPattern(pattern: QueryPattern, text: string): Captures | undefined {
  const { parts } = pattern;
  const captures: Record<string, string> = {};
  let part = 0;
  let at = 0;
  let retryPart = -1; // the part behind the latest `*`
  let retryAt = 0;
  for (;;) {
    const next = parts[part];
    if (next?.kind === 'any') {
      part += 1;
      retryPart = part;
      retryAt = at;
      continue;
    }
    const end = next === undefined ? (at === text.length ? at : -1) : take(next, text, at, captures);
    if (end !== -1 && next === undefined) return Object.freeze(captures);
    if (end !== -1) {
      part += 1;
      at = end;
      continue;
    }
    // Every part takes a fixed length at a given place, so only the latest `*` needs to grow.
    if (retryPart === -1 || retryAt >= text.length) return undefined;
    retryAt += 1;
    part = retryPart;
    at = retryAt;
  }
}

function take(
  part: Exclude<Part, { kind: 'any' }>,
  text: string,
  at: number,
  captures: Record<string, string>,
): number {
  if (part.kind === 'literal') return text.startsWith(part.text, at) ? at + part.text.length : -1;
  const slash = text.indexOf('/', at);
  const end = slash === -1 ? text.length : slash;
  if (end === at || text[at - 1] !== '/') return -1;
  captures[part.name] = text.slice(at, end);
  return end;
}
