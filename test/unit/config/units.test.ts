import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  formatDuration,
  formatMode,
  formatSize,
  parseDuration,
  parseMode,
  parseSize,
} from '../../../src/config/units.ts';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';

describe('durations, sizes and file modes', () => {
  const durations: readonly [string, number][] = [
    ['0s', 0],
    ['150ms', 150],
    ['10s', 10_000],
    ['1.5s', 1500],
    ['1h30m', 5_400_000],
    ['720h', 2_592_000_000],
  ];
  for (const [text, ms] of durations) {
    it(`reads ${text} as ${ms} ms`, () => assert.equal(parseDuration(text), ms));
  }
  for (const text of ['', '10', '10 s', '-1s', '1d', 's', '1s2', '1e3s', `${'9'.repeat(60)}h`]) {
    it(`refuses the duration ${JSON.stringify(text)}`, () =>
      assert.throws(() => parseDuration(text), MalformedError));
  }

  const sizes: readonly [string, number][] = [
    ['0B', 0],
    ['512B', 512],
    ['64KiB', 65_536],
    ['4MiB', 4_194_304],
    ['1GiB', 1_073_741_824],
  ];
  for (const [text, bytes] of sizes) {
    it(`reads ${text} as ${bytes} bytes`, () => assert.equal(parseSize(text), bytes));
  }
  for (const text of ['', '1', '1MB', '1.5MiB', '-1B', '1 MiB', `${'9'.repeat(30)}GiB`]) {
    it(`refuses the size ${JSON.stringify(text)}`, () =>
      assert.throws(() => parseSize(text), MalformedError));
  }

  it('reads a mode in octal with or without the leading zero', () => {
    assert.equal(parseMode('0660'), 0o660);
    assert.equal(parseMode('600'), 0o600);
    for (const text of ['', '66', '0o660', '0888', '04755', '01000']) {
      assert.throws(() => parseMode(text), MalformedError, text);
    }
  });

  it('formats what it parses to the same value', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e12 }), (value) => {
        assert.equal(parseDuration(formatDuration(value)), value);
        assert.equal(parseSize(formatSize(value)), value);
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0o777 }), (mode) => parseMode(formatMode(mode)) === mode),
    );
  });

  it('throws nothing but AppError, whatever the text', () => {
    fc.assert(
      fc.property(fc.string(), fc.constantFrom(parseDuration, parseSize, parseMode), (text, parse) => {
        try {
          assert.ok(Number.isSafeInteger(parse(text)));
        } catch (error) {
          assert.ok(error instanceof AppError);
        }
      }),
    );
  });
});
