import { LimitError, MalformedError } from '../../runtime/errors.ts';

/** What the last element of `x-forwarded-client-cert` says: the hop that the nearest proxy has added. */
export type Xfcc = Readonly<{
  uris: readonly string[];
  /** URL-encoded PEM: the leaf, and the leaf with what the peer sent behind it. */
  cert: string | undefined;
  chain: string | undefined;
  /** What earlier elements have as `cert`, else as `chain`; some have neither. */
  earlierCerts: readonly string[];
}>;

const maxElements = 32;
const maxLength = 256 * 1024;

/**
 * Reads the header by its grammar: elements parted by commas, pairs by semicolons, values that hold either in
 * quotes, with `\` before a quote. Keys have no case. Only the last element is told of. Throws MalformedError when any
 * element does not follow it, LimitError beyond 256 KiB.
 */
export function parseXfcc(text: string): Xfcc {
  if (text.length > maxLength) throw new LimitError('x-forwarded-client-cert is too long');
  const elements: Element[] = [];
  let pairs: Pair[] = [];
  // No two parts can match the same text, so a long header costs no more than its length.
  const pair = /\s*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"\s*|([^,;"]*))([,;]|$)/y;
  for (;;) {
    const match = pair.exec(text);
    if (match === null) throw new MalformedError('x-forwarded-client-cert does not follow its grammar');
    const [, key = '', quoted, plain = '', end] = match;
    pairs.push([key.toLowerCase(), quoted === undefined ? plain.trim() : quoted.replaceAll(/\\(.)/g, '$1')]);
    if (end === '') break;
    if (end === ';') continue;
    elements.push(elementOf(pairs));
    if (elements.length === maxElements)
      throw new LimitError('x-forwarded-client-cert has too many elements');
    pairs = [];
  }
  const earlierCerts = elements.map(({ cert, chain }) => cert ?? chain).filter((one) => one !== undefined);
  return { ...elementOf(pairs), earlierCerts };
}

type Pair = readonly [key: string, value: string];
type Element = Omit<Xfcc, 'earlierCerts'>;

function elementOf(pairs: readonly Pair[]): Element {
  const all = (key: string): string[] => pairs.filter(([name]) => name === key).map(([, value]) => value);
  return { uris: all('uri'), cert: only(all('cert')), chain: only(all('chain')) };
}

function only(values: readonly string[]): string | undefined {
  if (values.length > 1)
    throw new MalformedError('x-forwarded-client-cert has a certificate twice in one element');
  return values[0] === '' ? undefined : values[0];
}
