import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BundleHandler } from '../../../../src/policy/bundle/bundle-source.ts';
import { createFileBundleSource } from '../../../../src/policy/bundle/file-bundle-source.ts';
import { MalformedError, UnavailableError } from '../../../../src/runtime/errors.ts';
import { createManualClock } from '../../../support/manual-clock.ts';
import { tempDirectory, until } from '../../../support/process.ts';

test('a version that could not be judged is offered again, and a bad one is not', async (t) => {
  const file = join(await tempDirectory(t), 'bundle.tar.gz');
  await writeFile(file, 'first');
  const clock = createManualClock(0);
  const stop = new AbortController();
  const offered: string[] = [];
  let failure: Error = new UnavailableError('bundle thread failed');
  const handler: BundleHandler = {
    take({ bytes }) {
      offered.push(bytes.toString());
      return Promise.reject(failure);
    },
    failed: assert.fail,
  };
  const source = createFileBundleSource({ name: 'policy', file, sleep: clock.sleep });
  const following = source.follow(handler, stop.signal);
  const count = (what: string, number: number) =>
    until(what, async () => {
      await clock.advance(1_000);
      return offered.length === number || undefined;
    });
  await count('the first offer', 1);
  await count('the second offer', 2);
  failure = new MalformedError('bundle is no bundle');
  await count('the last offer', 3);
  for (let second = 0; second < 100; second += 1) await clock.advance(1_000);
  assert.deepEqual(offered, ['first', 'first', 'first']);
  await writeFile(file, 'another');
  await count('a new version', 4);
  assert.equal(offered.at(-1), 'another');
  stop.abort();
  await following;
});
