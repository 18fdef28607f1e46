import { MalformedError } from '../runtime/errors.ts';
import { parseTrustDomain, type SpiffeId, type TrustDomain } from './spiffe-id.ts';

/** An anchored pattern for SPIFFE IDs of one trust domain. Made only by `parseIdPattern`. */
export type IdPattern = Readonly<{
  text: string;
  trustDomain: TrustDomain;
  /** What stands between the stars; one piece when there is no star. */
  pieces: readonly [string, ...string[]];
}>;

const scheme = 'spiffe://';
const maxPatternBytes = 2048;
const pathCharacters = /^[a-zA-Z0-9._/*-]+$/;

/**
 * Parses `spiffe://DOMAIN/PATH`, where `*` in the path stands for any number of any characters, slashes included. The
 * domain is literal. Throws MalformedError for a star in it, and for what can match no SPIFFE ID at all: a pattern that
 * never matches is a deny list that does not deny.
 */
export function parseIdPattern(text: string): IdPattern {
  if (text.length > maxPatternBytes)
    throw new MalformedError(`pattern is longer than ${maxPatternBytes} bytes`);
  if (!text.startsWith(scheme)) throw new MalformedError('pattern does not start with spiffe://');
  const slash = text.indexOf('/', scheme.length);
  const domain = slash === -1 ? text.slice(scheme.length) : text.slice(scheme.length, slash);
  if (domain.includes('*'))
    throw new MalformedError('pattern has a * in the trust domain, which must be literal');
  const trustDomain = parseTrustDomain(domain);
  if (slash === -1)
    throw new MalformedError('pattern has no path: write spiffe://DOMAIN/* for every ID of the domain');
  checkPath(text.slice(slash + 1));
  const [first = '', ...others] = text.split('*');
  return Object.freeze<IdPattern>({ text, trustDomain, pieces: [first, ...others] });
}

/** True when the whole ID matches. Linear in the length of the ID for each piece; never backtracks. */
export function matchesId(pattern: IdPattern, id: SpiffeId): boolean {
  const { pieces } = pattern;
  const [first] = pieces;
  if (pieces.length === 1) return id === first;
  const last = pieces.at(-1) ?? '';
  if (!id.startsWith(first) || !id.endsWith(last) || id.length < first.length + last.length) return false;
  const end = id.length - last.length;
  let at = first.length;
  for (const piece of pieces.slice(1, -1)) {
    const found = id.indexOf(piece, at);
    if (found === -1 || found + piece.length > end) return false;
    at = found + piece.length;
  }
  return true;
}

function checkPath(path: string): void {
  if (!pathCharacters.test(path)) {
    throw new MalformedError(
      path === ''
        ? 'pattern has an empty path: write spiffe://DOMAIN/* for every ID of the domain'
        : 'pattern has characters other than letters, numbers, dot, dash, underscore, slash and *',
    );
  }
  for (const segment of path.split('/')) {
    if (segment === '' || segment === '.' || segment === '..') {
      throw new MalformedError('pattern has an empty or dot segment, which no SPIFFE ID has');
    }
  }
}
