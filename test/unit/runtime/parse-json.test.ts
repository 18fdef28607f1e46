import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LimitError } from '../../../src/runtime/errors.ts';
import { parseJson } from '../../../src/runtime/parse-json.ts';

/** As the text of `value` is, with every character of every key escaped that `escapes` says so of. */
function written(value: unknown, escapes: (key: string, at: number) => boolean, space: string): string {
  const write = (part: unknown): string => {
    if (Array.isArray(part)) return `[${space}${part.map(write).join(`${space},${space}`)}${space}]`;
    if (typeof part !== 'object' || part === null) return JSON.stringify(part);
    const members = Object.entries(part).map(([key, child]) => {
      const units = Array.from({ length: key.length }, (_, at) => {
        const hex = key.charCodeAt(at).toString(16).padStart(4, '0');
        return escapes(key, at) ? `\\u${hex}` : JSON.stringify(key.charAt(at)).slice(1, -1);
      });
      return `${space}"${units.join('')}"${space}:${space}${write(child)}${space}`;
    });
    return `{${members.join(',')}}`;
  };
  return `${space}${write(value)}${space}`;
}

test('any JSON is read as what it was written from, whichever characters of its keys are escaped', () => {
  const values = fc.jsonValue({ maxDepth: 4 });
  const some = fc.func(fc.boolean());
  fc.assert(
    fc.property(values, some, fc.constantFrom('', ' ', '\t', '\r\n'), (value, escapes, space) => {
      // Compared as text: JSON.parse, whose word on escaped keys is in doubt, has no part in it.
      assert.equal(JSON.stringify(parseJson(written(value, escapes, space))), JSON.stringify(value));
    }),
  );
});

test('a key is what it says, whatever keys other documents had', () => {
  // What V8 takes the next key behind x for, if it is as long and begins so as written.
  for (const [poison, text] of [
    ['{"x":1,"\\\\u006":2}', '{"x":1,"\\u0061dmin":true}'],
    ['{"x":1,"\\\\\\"":2}', '{"x":1,"\\"q":true}'],
    ['{"x":1,"a\\\\":2}', '{"x":1,"a\\n":true}'],
  ] as const) {
    for (let i = 0; i < 3; i++) JSON.parse(poison);
    const read = parseJson(`[${text},[${text}]]`) as [object, [object]];
    const key = text.includes('dmin') ? 'admin' : text.includes('q') ? '"q' : 'a\n';
    for (const object of [read[0], read[1][0]])
      assert.deepEqual(Object.entries(object), [
        ['x', 1],
        [key, true],
      ]);
  }
});

test('of equal keys the last counts, however they are written', () => {
  for (const [text, expected] of [
    ['{"a":1,"\\u0061":2,"a":3}', '{"a":3}'],
    ['{"1":1,"\\u0031":2}', '{"1":2}'],
    ['{"\\n":1,"b":2,"\\u000a":[{"\\"":3}]}', '{"\\n":[{"\\"":3}],"b":2}'],
    ['{"\\u005f_proto__":{"a":1,"\\n":2}}', '{"__proto__":{"a":1,"\\n":2}}'],
    ['{"__proto__":{"\\n":2}}', '{"__proto__":{"\\n":2}}'],
  ] as const)
    assert.equal(JSON.stringify(parseJson(text)), expected);
  assert.equal(({} as Record<string, unknown>)['a'], undefined);
});

test('a text that is no JSON is a SyntaxError, whatever it has of quotes and backslashes', () => {
  for (const text of [
    '{"\\u0061":}',
    '{"a"\\u003a":1}',
    '\\"\\n":1',
    '{"\\u00zz":1}',
    '{"\\n',
    '{"\\"',
    '"\\n":',
  ])
    assert.throws(() => parseJson(text), SyntaxError, text);
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...Array.from('{}[]",:\\nu0061 a')) }), (text) => {
      const outcome = (parse: (text: string) => unknown): string => {
        try {
          return JSON.stringify(parse(text));
        } catch (error) {
          assert.ok(error instanceof SyntaxError);
          return 'no JSON';
        }
      };
      assert.equal(outcome(parseJson) === 'no JSON', outcome(JSON.parse) === 'no JSON');
    }),
    { numRuns: 2_000 },
  );
});

test('nesting of any depth is read', () => {
  const deep = parseJson(`${'['.repeat(50_000)}{"\\n":1}${']'.repeat(50_000)}`);
  let inner: unknown = deep;
  while (Array.isArray(inner)) inner = inner[0];
  assert.deepEqual(Object.keys(inner as object), ['\n']);
});

test('more different escaped keys than a document has reason to are refused, as many of the same are not', () => {
  const keys = (count: number) => Array.from({ length: count }, (_, at) => `"\\u0061${at}":1`).join();
  assert.equal(Object.keys(parseJson(`{${keys(10_000)}}`) as object).length, 10_000);
  assert.throws(() => parseJson(`{${keys(10_001)}}`), LimitError);
  const same = `[${Array.from({ length: 20_000 }, () => '{"\\n":1}').join()}]`;
  assert.equal(JSON.stringify(parseJson(same)), same);
});
