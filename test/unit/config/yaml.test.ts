import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatYaml, parseYaml } from '../../../src/config/yaml.ts';
import { AppError } from '../../../src/runtime/errors.ts';

describe('YAML', () => {
  it('reads YAML and JSON alike', () => {
    assert.deepEqual(parseYaml('a: {b: [1, "x", true]}\nc:\n'), { a: { b: [1, 'x', true] }, c: null });
    assert.deepEqual(parseYaml('{\n\t"a": {"b": [1, "x", true]}, "c": null}'), {
      a: { b: [1, 'x', true] },
      c: null,
    });
  });

  it('reads an unquoted file mode as what it is in YAML 1.2, a decimal number', () => {
    assert.deepEqual(parseYaml('mode: 0660'), { mode: 660 });
  });

  const refused: readonly [string, string, RegExp][] = [
    ['a duplicate key', 'a: 1\na: 2', /must be unique at line 2/],
    ['a duplicate key in JSON', '{"a": 1, "a": 2}', /must be unique/],
    ['a custom tag', 'a: !!js/function x', /Unresolved tag/],
    ['a second document', 'a: 1\n---\nb: 1', /multiple documents/],
    ['an open bracket', 'a: {', /line 1/],
    ['an alias inside of what it names', 'a: &a [1, *a]', /deeper than 64 levels/],
    ['a key that is a map', '? {a: 1}\n: 2', /keys/i],
    ['more than 1 MiB', `a: "${'x'.repeat(1024 * 1024)}"`, /larger than 1 MiB/],
    [
      'aliases that multiply',
      `a: &a [x]\n${'bcdefghijk'
        .split('')
        .map((key, i) => `${key}: &${key} [${Array(10).fill(`*${'abcdefghij'[i]}`).join()}]`)
        .join('\n')}`,
      /alias/i,
    ],
  ];
  for (const [what, text, message] of refused) {
    it(`refuses ${what}`, () => assert.throws(() => parseYaml(text), { name: 'ConfigError', message }));
  }

  it('shows no excerpt of the file in an error', () => {
    assert.throws(
      () => parseYaml('password: "hunter2\npassword: "hunter2"'),
      (error: unknown) => error instanceof AppError && !error.message.includes('hunter2'),
    );
  });

  it('throws nothing but AppError, whatever the text', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[-a: {}[\],&*!|>"'\n#]*$/)), (text) => {
        try {
          parseYaml(text);
        } catch (error) {
          assert.ok(error instanceof AppError, String(error));
        }
      }),
    );
  });

  it('formats what it parses to the same value', () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), (any) => {
        fc.pre(!JSON.stringify(any).includes('__proto__'));
        // JSON has no -0, which YAML would keep.
        const value: unknown = JSON.parse(JSON.stringify(any));
        assert.deepEqual(parseYaml(formatYaml(value)), value);
      }),
    );
  });
});
