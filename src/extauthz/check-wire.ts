import { LimitError, MalformedError } from '../runtime/errors.ts';

/** Enough for 2 000 headers in both forms, 2 000 context extensions and some thousand values of metadata. */
const maxFields = 32_768;
/** Smaller messages cannot hold so many fields that reading them takes long. */
const harmlessBytes = maxFields;
const maxDepth = 100;

/** What a field holds: a number, text or bytes, a double, or a message of a shape. */
type Kind = 'number' | 'long' | 'double' | 'text' | (() => Shape);
type Shape = Readonly<Record<number, Kind>>;

const map = (value: Kind): (() => Shape) => {
  const entry: Shape = { 1: 'text', 2: value };
  return () => entry;
};
const shape = (fields: Shape): (() => Shape) => {
  return () => fields;
};

// Field numbers of envoy.service.auth.v3.CheckRequest and what it is made of; test/unit/extauthz/check-wire.test.ts holds them
// against proto/.
const value: () => Shape = () => valueShape;
const struct = shape({ 1: map(value) });
const list = shape({ 1: value });
const valueShape: Shape = { 1: 'number', 2: 'double', 3: 'text', 4: 'number', 5: struct, 6: list };
const metadata = shape({ 1: map(struct), 2: map(shape({ 1: 'text', 2: 'text' })) });
const socketAddress: Shape = {
  1: 'number',
  2: 'text',
  3: 'number',
  4: 'text',
  5: 'text',
  6: 'number',
  7: 'text',
};
const address = shape({
  1: shape(socketAddress),
  2: shape({ 1: 'text', 2: 'number' }),
  3: shape({ 1: 'text', 2: 'text' }),
});
const peer = shape({ 1: address, 2: 'text', 3: map('text'), 4: 'text', 5: 'text' });
const headerMap = shape({ 1: shape({ 1: 'text', 2: 'text', 3: 'text' }) });
const http = shape({
  1: 'text',
  2: 'text',
  3: map('text'),
  4: 'text',
  5: 'text',
  6: 'text',
  7: 'text',
  8: 'text',
  9: 'long',
  10: 'text',
  11: 'text',
  12: 'text',
  13: headerMap,
});
const time = shape({ 1: 'long', 2: 'number' });
const attributes = shape({
  1: peer,
  2: peer,
  4: shape({ 1: time, 2: http }),
  10: map('text'),
  11: metadata,
  12: shape({ 1: 'text' }),
  13: metadata,
});
const checkRequest: Shape = { 1: attributes };

/**
 * Refuses the bytes of a CheckRequest that would take long to decode because they have so many fields: an empty one takes
 * two bytes on the wire and a hundred times that in memory. Throws LimitError, or MalformedError for bytes that a decoder
 * might read in another way than this does.
 */
export function boundCheckRequest(bytes: Uint8Array): void {
  if (bytes.length <= harmlessBytes) return;
  let at = 0;
  let fields = 0;

  function varint(maxBytes: number): number {
    let value = 0;
    for (let i = 0; i < maxBytes; i++) {
      const byte = bytes[at++];
      if (byte === undefined) throw brokenOff();
      if (i < 5) value = (value | ((byte & 0x7f) << (7 * i))) >>> 0;
      if (byte < 0x80) return value;
    }
    throw new MalformedError('CheckRequest has a number that is too long');
  }

  function skip(length: number, end: number): void {
    at += length;
    if (at > end) throw brokenOff();
  }

  function field(known: Shape, end: number, depth: number): void {
    if (++fields > maxFields) throw new LimitError(`CheckRequest has more than ${maxFields} fields`);
    const tag = varint(5);
    const wire = tag & 7;
    const kind = known[tag >>> 3];
    if (kind !== undefined && wire !== wireOf(kind)) {
      throw new MalformedError('CheckRequest has a field of another type than its own');
    }
    if (wire === 0) {
      const start = at;
      varint(10);
      // Where 32 bits are enough, decoders differ on how many bytes to pass over.
      if (kind === 'number' && at - start > 5 && at - start < 10)
        throw new MalformedError('CheckRequest has an odd number');
    } else if (wire === 1) skip(8, end);
    else if (wire === 5) skip(4, end);
    else if (wire === 2) {
      const length = varint(5);
      if (typeof kind === 'function') message(kind(), at + length, end, depth + 1);
      else skip(length, end);
    } else if (wire === 3) group(end, depth + 1);
    else throw new MalformedError('CheckRequest has a bad wire type');
    if (at > end) throw brokenOff();
  }

  function message(known: Shape, end: number, outerEnd: number, depth: number): void {
    if (end > outerEnd) throw brokenOff();
    bound(depth);
    for (;;) {
      if (at >= end) return;
      field(known, end, depth);
    }
  }

  function group(end: number, depth: number): void {
    bound(depth);
    for (;;) {
      const start = at;
      if ((varint(5) & 7) === 4) return;
      at = start;
      field({}, end, depth);
    }
  }

  message(checkRequest, bytes.length, bytes.length, 0);
}

function wireOf(kind: Kind): number {
  if (kind === 'number' || kind === 'long') return 0;
  return kind === 'double' ? 1 : 2;
}

function bound(depth: number): void {
  if (depth > maxDepth) throw new LimitError('CheckRequest is nested too deep');
}

function brokenOff(): MalformedError {
  return new MalformedError('CheckRequest breaks off');
}
