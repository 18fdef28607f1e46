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
  return text.includes(surrogate) ? withoutSurrogates(text) : text;
}

/** JSON.stringify writes nothing else that begins so, but for a backslash of the text itself, which it doubles. */
const surrogate = '\\ud';
const escapeLength = 6;
const backslash = 0x5c;

function withoutSurrogates(text: string): string {
  const parts: string[] = [];
  let done = 0;
  for (let at = text.indexOf(surrogate); at !== -1; at = text.indexOf(surrogate, at + surrogate.length)) {
    let start = at;
    while (start > done && text.charCodeAt(start - 1) === backslash) start--;
    if ((at - start) % 2 !== 0) continue;
    parts.push(text.slice(done, at), '\\ufffd');
    done = at + escapeLength;
  }
  return parts.join('') + text.slice(done);
}
