import assert from 'node:assert/strict';
import { chmod, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { AbortedError } from '../../../src/runtime/errors.ts';
import { watchFile } from '../../../src/runtime/file-watch.ts';
import { tempDirectory } from '../../support/process.ts';

type Watch = Readonly<{
  path: string;
  directory: string;
  /** Lets one poll happen and gives the events up to it. */
  poll(): Promise<readonly string[]>;
}>;

/** Watches a path with a clock that only `poll` moves. */
async function watch(t: TestContext, maxBytes = 100): Promise<Watch> {
  const directory = await tempDirectory(t);
  const path = join(directory, 'file');
  const stop = new AbortController();
  let events: string[] = [];
  let wake = (): void => {};
  let asleep = Promise.withResolvers<void>();
  const sleep = (_: number, signal: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      wake = resolve;
      signal.addEventListener('abort', () => reject(new AbortedError()), { once: true });
      asleep.resolve();
    });
  const run = (async () => {
    for await (const event of watchFile({ path, pollMs: 250, maxBytes, sleep }, stop.signal)) {
      events.push(event.kind === 'content' ? event.bytes.toString() : event.kind);
    }
  })();
  t.after(async () => {
    stop.abort();
    await run;
  });
  await asleep.promise;
  return {
    path,
    directory,
    async poll() {
      const before = events;
      asleep = Promise.withResolvers<void>();
      wake();
      await asleep.promise;
      events = [];
      return before;
    },
  };
}

test('it tells the content now, each change once, and that the file is gone', async (t) => {
  const { path, poll } = await watch(t);
  await writeFile(path, 'one');
  assert.deepEqual(await poll(), ['missing', 'one']);
  assert.deepEqual(await poll(), []);
  await writeFile(path, 'other');
  assert.deepEqual(await poll(), ['other']);
  await rm(path);
  assert.deepEqual(await poll(), ['missing']);
  assert.deepEqual(await poll(), []);
});

test('a rename into place and a switched symbolic link are changes, even of equal size', async (t) => {
  const { path, directory, poll } = await watch(t);
  await writeFile(path, 'one');
  assert.deepEqual(await poll(), ['missing', 'one']);
  await writeFile(`${path}.new`, 'two');
  await rename(`${path}.new`, path);
  assert.deepEqual(await poll(), ['two']);
  await writeFile(join(directory, 'target'), 'six');
  await symlink('target', `${path}.new`);
  await rename(`${path}.new`, path);
  assert.deepEqual(await poll(), ['six']);
});

test('a directory, a file without permission and one that is too large are unreadable', async (t) => {
  const { path, poll } = await watch(t);
  await mkdir(path);
  assert.deepEqual(await poll(), ['missing', 'unreadable']);
  await rm(path, { recursive: true });
  await writeFile(path, 'x'.repeat(101));
  assert.deepEqual(await poll(), ['unreadable']);
  await writeFile(path, 'fine');
  assert.deepEqual(await poll(), ['fine']);
  if (process.getuid?.() === 0) return; // root reads everything
  await chmod(path, 0);
  assert.deepEqual(await poll(), ['unreadable']);
});
