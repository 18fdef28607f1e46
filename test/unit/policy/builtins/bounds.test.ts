import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { EvaluationContext } from '../../../../src/policy/builtins/args.ts';
import { createBuiltins } from '../../../../src/policy/builtins/table.ts';
import type { Value } from '../../../../src/policy/builtins/value.ts';
import { LimitError } from '../../../../src/runtime/errors.ts';

const builtins = createBuiltins();

function call(name: string, args: readonly Value[]): Value {
  const context: EvaluationContext = { nowNs: 1n, memory: new Map(), random: () => 0.5 };
  const builtin = builtins.get(name);
  assert.ok(builtin !== undefined, name);
  return builtin(args, context);
}

const beyond: readonly (readonly [name: string, args: readonly Value[]])[] = [
  ['net.cidr_expand', ['10.0.0.0/8']],
  ['net.cidr_expand', ['::/0']],
  ['numbers.range_step', [0, 1e12, 1]],
  ['sprintf', ['%900000d'.repeat(20), Array.from({ length: 20 }, () => 1)]],
  ['regex.replace', ['x'.repeat(100_000), 'x', 'y'.repeat(1_000)]],
  ['regex.find_n', ['a'.repeat(100_000), 'a', 1]],
  ['regex.globs_match', ['a*'.repeat(2_000), 'a*'.repeat(2_000)]],
  ['io.jwt.verify_rs256', ['a.b.c', ' '.repeat(2 * 1024 * 1024)]],
];

for (const [name, args] of beyond) {
  test(`${name} of ${JSON.stringify(args).slice(0, 30)} ends the evaluation instead of being undefined`, () => {
    assert.throws(() => call(name, args), LimitError);
  });
}

test('patterns that are kept take bounded memory, however much each is compiled to', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const held = (): number => {
    collect();
    return process.memoryUsage().heapUsed;
  };
  const before = held();
  for (let i = 0; i < 15; i++) call('regex.find_n', [`${'(\\pL{1000})|'.repeat(150)}${i}`, 'a', -1]);
  const grown = held() - before;
  assert.ok(grown < 60_000_000, `${grown} bytes are kept`);
  assert.deepEqual(call('regex.find_n', ['a+', 'caab', -1]), ['aa']);
});

test('a pattern that makes backtracking engines hang takes no time', () => {
  assert.deepEqual(call('regex.find_n', ['^(a+)+$', `${'a'.repeat(5_000)}b`, -1]), []);
});
