import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { parseExactJson } from './exact-json.ts';

const maxParts = 1_000;
const maxHeaderBytes = 16 * 1024;
const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const typeOrDisposition = /^[!#$%&'*+.^_`{|}~0-9a-z-]+(?:\/[!#$%&'*+.^_`{|}~0-9a-z-]+)?$/;

/** A media type or disposition with its parameters, names in lower case. */
type HeaderWithParameters = Readonly<{ value: string; parameters: ReadonlyMap<string, string> }>;

/**
 * Reads a `multipart/form-data` body (RFC 7578): form names to their values in order, a part of type
 * `application/json` as JSON, any other as text. Parts without a form name are skipped. Undefined when the content type
 * names no boundary; MalformedError or LimitError when the body does not follow its format.
 */
export function parseMultipart(
  contentType: string,
  body: Buffer,
): Readonly<Record<string, readonly unknown[]>> | undefined {
  const boundary = parseHeaderParameters(contentType).parameters.get('boundary');
  if (boundary === undefined) return undefined;
  const values = Object.create(null) as Record<string, unknown[]>;
  for (const part of splitParts(body, boundary)) {
    const split = splitPart(part);
    const disposition = split.headers.get('content-disposition');
    if (disposition === undefined) continue;
    const { value, parameters } = parseHeaderParameters(disposition);
    const name = value === 'form-data' ? parameters.get('name') : undefined;
    if (name === undefined || name === '') continue;
    const encoding = split.headers.get('content-transfer-encoding') ?? 'binary';
    // RFC 7578, section 4.7: not used any more. Whoever decodes one all the same sees another value than we do.
    if (!/^(?:7bit|8bit|binary)$/i.test(encoding)) {
      throw new MalformedError('part of a multipart body has a transfer encoding');
    }
    const text = split.body.toString('utf8');
    const isJson = (split.headers.get('content-type') ?? '').includes('application/json');
    (values[name] ??= []).push(isJson ? parseExactJson(text) : text);
  }
  return values;
}

function splitParts(body: Buffer, boundary: string): Buffer[] {
  if (boundary === '' || boundary.length > 70)
    throw new MalformedError('multipart boundary has an impossible length');
  const delimiter = Buffer.from(`\r\n--${boundary}`, 'utf8');
  let at = firstPart(body, delimiter);
  const parts: Buffer[] = [];
  for (;;) {
    const lineEnd = body.indexOf('\r\n', at);
    const line = body.subarray(at, lineEnd === -1 ? body.length : lineEnd).toString('latin1');
    // The last delimiter is one only when its line ends there: other readers would go on to further parts.
    if (/^--[ \t]*$/.test(line)) return parts;
    if (lineEnd === -1 || !/^[ \t]*$/.test(line)) {
      throw new MalformedError('multipart body has a broken boundary line');
    }
    const start = lineEnd + 2;
    // A part may be empty, its headers included: then the next delimiter's line break is this line's.
    const end = body.indexOf(delimiter, lineEnd);
    if (end === -1) throw new MalformedError('multipart body ends inside a part');
    if (parts.length === maxParts) throw new LimitError('multipart body has too many parts');
    parts.push(body.subarray(start, Math.max(start, end)));
    at = end + delimiter.length;
  }
}

// The first delimiter may stand at the very start, without the line break that belongs to the others.
function firstPart(body: Buffer, delimiter: Buffer): number {
  const opening = delimiter.subarray(2);
  if (body.subarray(0, opening.length).equals(opening)) return opening.length;
  const first = body.indexOf(delimiter);
  if (first === -1) throw new MalformedError('multipart body has no boundary line');
  return first + delimiter.length;
}

function splitPart(part: Buffer): { headers: ReadonlyMap<string, string>; body: Buffer } {
  const headers = new Map<string, string>();
  let at = 0;
  for (;;) {
    const end = part.indexOf('\r\n', at);
    if (end === -1) throw new MalformedError('part of a multipart body has no end of its headers');
    if (end > maxHeaderBytes) throw new LimitError('part of a multipart body has too large headers');
    if (end === at) return { headers, body: part.subarray(end + 2) };
    const line = part.subarray(at, end).toString('utf8');
    const colon = line.indexOf(':');
    if (colon < 1 || !token.test(line.slice(0, colon))) {
      throw new MalformedError('part of a multipart body has a broken header');
    }
    const name = line.slice(0, colon).toLowerCase();
    // Two dispositions could name two fields; the parser behind Envoy may take the other one.
    if (headers.has(name)) throw new MalformedError('part of a multipart body has a header twice');
    headers.set(name, line.slice(colon + 1).trim());
    at = end + 2;
  }
}

function parseHeaderParameters(text: string): HeaderWithParameters {
  const semicolon = text.indexOf(';');
  const value = (semicolon === -1 ? text : text.slice(0, semicolon)).trim().toLowerCase();
  if (!typeOrDisposition.test(value)) throw new MalformedError('multipart header has a broken value');
  const parameters = new Map<string, string>();
  // Trimmed once: each look at a long tail of white space would cost its length for every parameter before it.
  let rest = semicolon === -1 ? '' : text.slice(semicolon).trimEnd();
  while (rest !== '' && rest.trimStart() !== ';') {
    const match =
      /^\s*;\s*([!#$%&'*+.^_`{|}~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([!#$%&'*+.^_`{|}~0-9A-Za-z-]+))\s*(?=;|$)/.exec(
        rest,
      );
    const name = match?.[1]?.toLowerCase();
    // RFC 7578, section 4.2, forbids the form of RFC 2231: some read it, others take the field for one without a name.
    const isExtended = name?.startsWith('name*') || name?.startsWith('boundary*');
    if (match === null || name === undefined || isExtended || parameters.has(name)) {
      throw new MalformedError('multipart header has broken parameters');
    }
    parameters.set(name, match[3] ?? (match[2] ?? '').replace(/\\(["\\])/g, '$1'));
    rest = rest.slice(match[0].length);
  }
  return { value, parameters };
}
