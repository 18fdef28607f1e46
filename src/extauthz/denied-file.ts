import { messageOf } from '../runtime/errors.ts';
import { type IdPattern, parseIdPattern } from '../spiffe/match.ts';

/** What a denied-identities file says: one pattern a line; empty lines and lines that start with `#` say nothing. */
export type DeniedLines = Readonly<{
  patterns: readonly IdPattern[];
  /** Lines that are no pattern, with what is wrong; they do not keep the good ones from being in force. */
  problems: readonly Readonly<{ line: number; message: string }>[];
}>;

export function parseDeniedLines(text: string): DeniedLines {
  const patterns: IdPattern[] = [];
  const problems: { line: number; message: string }[] = [];
  text.split(/\r?\n/).forEach((raw, index) => {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) return;
    try {
      patterns.push(parseIdPattern(line));
    } catch (error) {
      problems.push({ line: index + 1, message: messageOf(error) });
    }
  });
  return { patterns, problems };
}

/** The denied identities of a file that is being watched. */
export type DeniedState = Readonly<{
  inForce: ReadonlyMap<string, IdPattern>;
  /** What the file says now, and when that replaces what is in force; undefined when the two are equal. */
  next: Readonly<{ patterns: ReadonlyMap<string, IdPattern>; at: number }> | undefined;
}>;

/** How long a file has to stay as it is before a line that it no longer has is let go, in milliseconds. */
const settleMs = 1_000;

export const noDenied: DeniedState = Object.freeze({ inForce: new Map(), next: undefined });

/**
 * Takes new content of the file: what it adds is in force at once, what it lacks only once it has stayed so, because a
 * file that is being rewritten is empty for a moment.
 */
export function takeDenied(state: DeniedState, patterns: readonly IdPattern[], now: number): DeniedState {
  const wanted = new Map(patterns.map((pattern) => [pattern.text, pattern]));
  const inForce = new Map([...state.inForce, ...wanted]);
  const next = inForce.size === wanted.size ? undefined : { patterns: wanted, at: now + settleMs };
  return { inForce, next };
}

/** The file is gone: everything stays in force. */
export function keepDenied({ inForce }: DeniedState): DeniedState {
  return { inForce, next: undefined };
}

/** Lets go of removed lines when their time has come. */
export function settleDenied(state: DeniedState, now: number): DeniedState {
  const { next } = state;
  return next === undefined || now < next.at ? state : { inForce: next.patterns, next: undefined };
}
