import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkJson } from '../../../../src/policy/bundle/json-text.ts';
import { eachPiece, type JsonNode, jsonText, opened } from '../../../../src/policy/bundle/json-tree.ts';
import { AppError, LimitError } from '../../../../src/runtime/errors.ts';

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function passes(text: string): boolean {
  try {
    checkJson(Buffer.from(text), 'text');
    return true;
  } catch (error) {
    assert.ok(error instanceof AppError);
    return false;
  }
}

test('what passes is what JSON.parse takes, also after a slip', () => {
  const slip = fc.tuple(
    fc.json(),
    fc.nat(),
    fc.constantFrom('', ',', '"', '0', '{', ']', '\\', ' ', '-', 'e', '\n', '\u0001'),
  );
  const slipped = slip.map(([text, at, put]) => {
    const place = at % (text.length + 1);
    return text.slice(0, place) + put + text.slice(place + (at % 2));
  });
  const texts = fc.oneof(
    fc.json(),
    slipped,
    fc.string({ unit: fc.constantFrom(...'{}[],:"01.eE+-truefalsn\\u '.split('')) }),
  );
  fc.assert(
    fc.property(texts, (text) => {
      assert.equal(passes(text), isJson(text), text);
    }),
    { numRuns: 3_000 },
  );
});

test('corners of the grammar', () => {
  const good = [
    '0',
    '-0',
    '1e5',
    '1.5E-2',
    ' [ ] ',
    '{"":{}}',
    '"\\ud800"',
    '"\\/"',
    '\t{"a" : [1 , 2]}\r\n',
  ];
  const bad = [
    '',
    ' ',
    '01',
    '1.',
    '.5',
    '+1',
    '-',
    '1e',
    '"',
    '"\\x"',
    '"\\u12"',
    '"\u0000"',
    '[1,]',
    '{"a":1,}',
    '{a:1}',
  ];
  const worse = [
    '{"a"}',
    '{"a":}',
    '[,]',
    '1 2',
    '{} x',
    'nul',
    'True',
    'NaN',
    '[',
    '{"a":[}',
    '\ufeff{}',
    '[1}',
  ];
  for (const text of good) assert.ok(passes(text), text);
  for (const text of [...bad, ...worse]) assert.ok(!passes(text), text);
  assert.throws(() => checkJson(Buffer.from([0x22, 0xff, 0x22]), 'text'), /text is not JSON: not UTF-8/);
});

test('a text nested too deep is refused before it is followed', () => {
  assert.throws(() => checkJson(Buffer.from('['.repeat(10_000_000)), 'text'), LimitError);
  const deep = 1000;
  assert.ok(passes('['.repeat(deep) + ']'.repeat(deep)));
  assert.ok(!passes('['.repeat(deep + 1) + ']'.repeat(deep + 1)));
});

/** Takes the whole tree apart. */
function openAll(node: JsonNode): JsonNode {
  const inner = opened(node);
  if (inner.kind === 'object') {
    for (const [key, member] of inner.members) inner.members.set(key, openAll(member));
  } else if (inner.kind === 'array') {
    for (const [index, item] of inner.items.entries()) inner.items[index] = openAll(item);
  }
  return inner;
}

function textOf(node: JsonNode): string {
  const pieces: Buffer[] = [];
  eachPiece(node, (piece) => pieces.push(Buffer.from(piece)));
  return Buffer.concat(pieces).toString();
}

test('a document taken apart and put together again is the same', () => {
  fc.assert(
    fc.property(fc.json(), fc.boolean(), (text, indented) => {
      const value: unknown = JSON.parse(text);
      const bytes = Buffer.from(JSON.stringify(value, undefined, indented ? 1 : undefined));
      const again = textOf(openAll(jsonText(bytes)));
      assert.deepEqual(JSON.parse(again), value);
    }),
  );
});

test('numbers keep their digits, and the last of two equal keys counts', () => {
  const text = '{"n":12345678901234567890.10, "a":1, "a":[1.0, 2e400], "__proto__":{"x":1}}';
  const again = textOf(openAll(jsonText(Buffer.from(text))));
  assert.equal(again, '{"n":12345678901234567890.10,"a":[1.0,2e400],"__proto__":{"x":1}}');
});
