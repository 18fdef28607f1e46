import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LimitError } from '../../../src/runtime/errors.ts';
import { changeNames, replaceNames, type Subscription } from '../../../src/sds/subscription.ts';

const seen = ({ everything, names }: Subscription) => ({ everything, names: [...names] });

function sotw(...lists: readonly (readonly string[])[]): Subscription {
  let subscription: Subscription | undefined;
  for (const names of lists) subscription = replaceNames(subscription, names);
  assert.ok(subscription !== undefined);
  return subscription;
}

const sotwStories: readonly (readonly [string, readonly string[][], object])[] = [
  ['a first empty list means everything', [[]], { everything: true, names: [] }],
  ['everything stays everything while nothing is named', [[], [], []], { everything: true, names: [] }],
  ['naming something ends everything', [[], ['a']], { everything: false, names: ['a'] }],
  ['an empty list after names means nothing', [['a'], []], { everything: false, names: [] }],
  ['nothing stays nothing', [['a'], [], []], { everything: false, names: [] }],
  [
    'everything, names, nothing: no way back to everything',
    [[], ['a'], []],
    { everything: false, names: [] },
  ],
  ['emptied names can come back', [['a'], [], ['a', 'b']], { everything: false, names: ['a', 'b'] }],
  ['a name that occurs twice is one', [['a', 'a', 'b']], { everything: false, names: ['a', 'b'] }],
  ['a first list of empty names is not an empty list', [['', '']], { everything: false, names: [] }],
  ['empty names among others are dropped', [['', 'a']], { everything: false, names: ['a'] }],
  ['a star is just a name', [['*']], { everything: false, names: ['*'] }],
];

for (const [name, lists, expected] of sotwStories) {
  test(`state of the world: ${name}`, () => {
    assert.deepEqual(seen(sotw(...lists)), expected);
  });
}

type Change = { subscribe?: string[]; unsubscribe?: string[] };

function delta(...changes: readonly Change[]): Subscription {
  let subscription: Subscription | undefined;
  for (const { subscribe = [], unsubscribe = [] } of changes) {
    subscription = changeNames(subscription, { subscribe, unsubscribe }, 3);
  }
  assert.ok(subscription !== undefined);
  return subscription;
}

const deltaStories: readonly (readonly [string, readonly Change[], object])[] = [
  ['a first request without names means everything', [{}], { everything: true, names: [] }],
  ['a star means everything', [{ subscribe: ['*'] }], { everything: true, names: [] }],
  [
    'a later star means everything as well',
    [{ subscribe: ['a'] }, { subscribe: ['*'] }],
    { everything: true, names: ['a'] },
  ],
  ['everything lasts beside names', [{}, { subscribe: ['a'] }], { everything: true, names: ['a'] }],
  [
    'everything ends when the star is unsubscribed',
    [{}, { subscribe: ['a'] }, { unsubscribe: ['*'] }],
    { everything: false, names: ['a'] },
  ],
  [
    'a later request without names changes nothing',
    [{ subscribe: ['a'] }, {}],
    { everything: false, names: ['a'] },
  ],
  [
    'letting go of the last name means nothing',
    [{ subscribe: ['a'] }, { unsubscribe: ['a'] }, {}],
    { everything: false, names: [] },
  ],
  [
    'letting go of a name never asked for is fine',
    [{ subscribe: ['a'] }, { unsubscribe: ['b'] }],
    { everything: false, names: ['a'] },
  ],
  [
    'a name in both lists ends up unsubscribed',
    [{ subscribe: ['a', 'b'], unsubscribe: ['a'] }],
    { everything: false, names: ['b'] },
  ],
  [
    'names add up, each once',
    [{ subscribe: ['a', 'a'] }, { subscribe: ['b', 'a'] }],
    { everything: false, names: ['a', 'b'] },
  ],
  [
    'a first list of empty names is not an empty list',
    [{ subscribe: [''] }],
    { everything: false, names: [] },
  ],
];

for (const [name, changes, expected] of deltaStories) {
  test(`delta: ${name}`, () => {
    assert.deepEqual(seen(delta(...changes)), expected);
  });
}

test('delta: names that add up beyond the limit are refused', () => {
  assert.deepEqual(seen(delta({ subscribe: ['a', 'b', 'c'] })).names, ['a', 'b', 'c']);
  assert.throws(() => delta({ subscribe: ['a', 'b'] }, { subscribe: ['c', 'd'] }), LimitError);
});
