import { MalformedError } from '../../runtime/errors.ts';
import { decodeBase64 } from './go-text.ts';

/** One PEM block; headers are not kept. */
export type PemBlock = Readonly<{ type: string; der: Buffer }>;

const begin = '-----BEGIN ';
const end = '\n-----END ';
const dashes = '-----';

/**
 * The PEM blocks of a text by the rules of Go's encoding/pem, which passes over what is none: a block starts at the last
 * BEGIN line before an END line, and one that is broken is not there. Never throws.
 */
export function pemBlocks(text: string): readonly PemBlock[] {
  const blocks: PemBlock[] = [];
  for (let at = 0; ; ) {
    const endAt = text.indexOf(end, at);
    if (endAt < 0) return blocks;
    const beginAt = text.slice(at, endAt).lastIndexOf(begin) + at;
    const next = endAt + end.length;
    const found =
      beginAt >= at && (beginAt === at || text[beginAt - 1] === '\n')
        ? readBlock(text, beginAt + begin.length, endAt)
        : undefined;
    if (found !== undefined) blocks.push(found.block);
    at = found?.next ?? next;
  }
}

function readBlock(text: string, from: number, endAt: number): { block: PemBlock; next: number } | undefined {
  // An empty block has its END line right behind the BEGIN line, so that they share the line end.
  let { line, next } = readLine(text, from);
  if (!line.endsWith(dashes)) return undefined;
  const type = line.slice(0, -dashes.length);
  let bodyAt = next;
  for (let headers = 0; ; headers++) {
    if (bodyAt >= text.length) return undefined;
    ({ line, next } = readLine(text, bodyAt));
    // What runs beyond the END line is no header, and is not read again for each block.
    if (headers > 0 && endAt < bodyAt) return undefined;
    if (!line.includes(':')) break;
    bodyAt = next;
  }
  const trailer = `${type}${dashes}`;
  const trailerAt = endAt + end.length;
  if (!text.startsWith(trailer, trailerAt)) return undefined;
  const rest = readLine(text, trailerAt + trailer.length);
  if (rest.line !== '') return undefined;
  const body = endAt > bodyAt ? text.slice(bodyAt, endAt).replaceAll(/[ \t]/g, '') : '';
  try {
    return { block: { type, der: decodeBase64(body) }, next: rest.next };
  } catch (error) {
    if (error instanceof MalformedError) return undefined;
    throw error;
  }
}

/** A line without the blanks at its end. */
function readLine(text: string, at: number): { line: string; next: number } {
  const found = text.indexOf('\n', at);
  const stop = found < 0 ? text.length : found;
  let last = stop;
  while (last > at && ' \t\r'.includes(text.charAt(last - 1))) last--;
  return { line: text.slice(at, last), next: found < 0 ? stop : stop + 1 };
}
