import { LimitError, MalformedError } from '../runtime/errors.ts';

/** Deeper JSON is refused: a recursive walk of ours or of an engine must never run out of stack. */
export const maxJsonDepth = 512;

type RawJson = Readonly<{ rawJSON(text: string): object }>;
type Reviver = (
  this: unknown,
  key: string,
  value: unknown,
  context: Readonly<{ source?: string }>,
) => unknown;

/**
 * A number that JSON.stringify writes digit by digit as in `text`. It is no longer a JavaScript number, and does not
 * survive structuredClone: inputs go to engines as JSON text.
 */
export function rawNumber(text: string): object {
  return (JSON as unknown as RawJson).rawJSON(text);
}

/**
 * Parses JSON from a request body. Numbers that a double cannot hold are kept digit by digit, because a policy that
 * compares identifiers must not see two of them as one. Throws MalformedError, or LimitError when nested too deep.
 */
export function parseExactJson(text: string): unknown {
  if (text.length > maxJsonDepth && depthOf(text) > maxJsonDepth) {
    throw new LimitError(`JSON is nested deeper than ${maxJsonDepth} levels`);
  }
  try {
    // A number of 16 digits or with an exponent may be more than a double holds; other texts skip the slow walk.
    if (!/\d[\d.]{15}|\d[eE]/.test(text)) return JSON.parse(text) as unknown;
    return JSON.parse(text, keepExact as (this: unknown, key: string, value: unknown) => unknown) as unknown;
  } catch (error) {
    // The engine's message quotes the text, so it is not passed on.
    throw new MalformedError('body is not valid JSON', { cause: error });
  }
}

const keepExact: Reviver = (_key, value, { source }) =>
  typeof value !== 'number' || source === undefined || isExact(value, source) ? value : rawNumber(source);

// A double holds every decimal of 15 digits within its range, and every integer up to 2^53.
function isExact(value: number, source: string): boolean {
  if (!Number.isFinite(value)) return false;
  const mantissa = source.replace(/[eE].*$/, '').replace(/[-.]/g, '');
  if (mantissa.length > 15) return Number.isSafeInteger(value) && /^-?\d+$/.test(source);
  return Math.abs(value) >= 1e-300 || !/[1-9]/.test(mantissa);
}

function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (quoted) {
      if (c === 0x5c) i++;
      else if (c === 0x22) quoted = false;
    } else if (c === 0x22) quoted = true;
    else if (c === 0x5b || c === 0x7b) deepest = Math.max(deepest, ++depth);
    else if (c === 0x5d || c === 0x7d) depth--;
  }
  return deepest;
}
