import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const unit = import.meta.dirname;
const document = readFileSync(join(unit, '../../docs/conformance.md'), 'utf8');

/** The rows of the table that have a number. */
const rows = document.split('\n').filter((line) => /^\| \d+ \|/.test(line));

/** The titles in a test file, as patterns: what is computed in one stands for anything. */
function titlesIn(file: string): readonly RegExp[] {
  const source = readFileSync(join(unit, `${file}.test.ts`), 'utf8');
  const calls = source.matchAll(/\b(?:test|it)\(\s*(?:'([^'\n]+)'|"([^"\n]+)"|`([^`\n]+)`)/g);
  return [...calls].map(([, single, double, template]) => {
    const title = single ?? double ?? template ?? '';
    const parts = title.split(/\$\{(?:[^{}]|\{[^{}]*\})*\}/);
    const escaped = parts.map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`));
    return new RegExp(`^${escaped.join('.+')}$`);
  });
}

test('every divergence of the table in docs/conformance.md names tests that exist', () => {
  assert.equal(rows.length, 14);
  for (const row of rows) {
    const cell = row.split(' | ').at(-1) ?? '';
    const files = [...cell.matchAll(/`([a-z0-9-]+\/[a-z0-9-]+)`: (.*?)(?=; `|\s*\|?\s*$)/g)];
    assert.ok(files.length > 0, row);
    for (const [, file = '', titles = ''] of files) {
      const known = titlesIn(file);
      for (const [, title = ''] of titles.matchAll(/"(.+?)"(?=; |$| \|)/g)) {
        assert.ok(
          known.some((pattern) => pattern.test(title)),
          `${file} has no test "${title}"`,
        );
      }
    }
  }
});
