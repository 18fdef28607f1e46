import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createBuiltins } from '../../../../src/policy/builtins/table.ts';

const page = readFileSync(join(import.meta.dirname, '../../../../docs/policy-builtins.md'), 'utf8');

function namesUnder(heading: string): string[] {
  const section = page.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  const rows = section.split('\n').filter((line) => line.startsWith('| '));
  const column = heading === 'Supplied' ? 2 : 1;
  return rows
    .flatMap((row) => [...(row.split('|')[column] ?? '').matchAll(/`([^`]+)`/g)].map(([, name = '']) => name))
    .sort();
}

test('docs/policy-builtins.md names every built-in that is supplied, and no other', () => {
  assert.deepEqual(namesUnder('Supplied'), [...createBuiltins().keys()].sort());
});

test('docs/policy-builtins.md names nothing as lacking that is supplied', () => {
  const lacking = namesUnder('Not supplied');
  assert.ok(lacking.includes('http.send'));
  assert.deepEqual(
    lacking.filter((name) => createBuiltins().has(name)),
    [],
  );
});
