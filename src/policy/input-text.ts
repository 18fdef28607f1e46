import { MalformedError } from '../runtime/errors.ts';

/**
 * The JSON text of a policy input; the one time that an input is written as text. A lone surrogate, which a request's
 * body can hold and no UTF-8 can, becomes U+FFFD as in OPA itself: the parser inside wasm would abort on it, and an
 * error that a client can provoke is no deny. Throws MalformedError for what JSON cannot hold.
 */
export function encodeInput(input: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(input);
  } catch (error) {
    throw new MalformedError('input cannot be written as JSON', { cause: error });
  }
  if (text === undefined) return 'null';
  return text.includes('\\ud')
    ? text.replace(escapes, (all, surrogate) => (surrogate ? '\\ufffd' : all))
    : text;
}

/** Each escape whole, so that an escaped backslash before `ud800` is not taken for a surrogate. */
const escapes = /\\(?:u(d[89a-f][0-9a-f]{2})|[^])/g;
