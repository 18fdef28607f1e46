import assert from 'node:assert/strict';
import { chmod, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { AbortedError } from '../../../src/runtime/errors.ts';
import { createFileSet, watchFile } from '../../../src/runtime/file-watch.ts';
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

test('files that Kubernetes swaps behind ..data are seen all old or all new', async (t) => {
  const directory = await tempDirectory(t);
  const publish = async (version: string): Promise<void> => {
    await mkdir(join(directory, version));
    for (const name of ['one', 'two']) await writeFile(join(directory, version, name), version);
    await symlink(version, join(directory, '..data_tmp'));
    await rename(join(directory, '..data_tmp'), join(directory, '..data'));
  };
  await publish('v1');
  for (const name of ['one', 'two']) await symlink(join('..data', name), join(directory, name));
  const set = createFileSet({ paths: ['one', 'two'].map((name) => join(directory, name)), maxBytes: 100 });
  const contents = async (): Promise<readonly string[] | undefined> =>
    (await set.look())?.map((event) => (event.kind === 'content' ? event.bytes.toString() : event.kind));
  assert.deepEqual(await contents(), ['v1', 'v1']);
  assert.equal(await contents(), undefined);
  await publish('v2');
  assert.deepEqual(await contents(), ['v2', 'v2']);
  await rm(join(directory, 'one'));
  assert.deepEqual(await contents(), ['missing', 'v2']);
  assert.equal(await contents(), undefined);
});

test('a set is never a mixture of two publications, however they fall into a look', async (t) => {
  const directory = await tempDirectory(t);
  const names = Array.from({ length: 8 }, (_, index) => `file${index}`);
  const paths = names.map((name) => join(directory, name));
  // A version never comes back, as in life: one that did could stand before and after another.
  const versions = Array.from({ length: 300 }, (_, index) => `v${index}`);
  for (const version of versions) {
    await mkdir(join(directory, version));
    for (const name of names) await writeFile(join(directory, version, name), version);
  }
  const publish = async (version: string): Promise<void> => {
    await symlink(version, join(directory, 'next'));
    await rename(join(directory, 'next'), join(directory, '..data'));
  };
  await publish('v0');
  for (const [index, path] of paths.entries()) await symlink(join('..data', names[index] ?? ''), path);
  const over = new AbortController();
  const publisher = (async () => {
    for (const version of versions.slice(1)) await publish(version);
    over.abort();
  })();
  const set = createFileSet({ paths, maxBytes: 100 });
  while (!over.signal.aborted) {
    const events = (await set.look()) ?? [];
    const held = events.map((event) => (event.kind === 'content' ? event.bytes.toString() : event.kind));
    assert.ok(new Set(held).size <= 1, held.join());
  }
  await publisher;
});

test('it gives the permission bits, and says what to do where permission is missing', async (t) => {
  const { directory, path } = await watch(t);
  await writeFile(path, 'x', { mode: 0o640 });
  const [event] = (await createFileSet({ paths: [path], maxBytes: 100 }).look()) ?? [];
  assert.equal(event?.kind === 'content' && event.mode, 0o640);
  if (process.getuid?.() === 0) return; // root reads everything
  await chmod(path, 0);
  const [refused] = (await createFileSet({ paths: [join(directory, 'file')], maxBytes: 100 }).look()) ?? [];
  assert.match(
    refused?.kind === 'unreadable' ? refused.message : '',
    /may not be read .* check owner and mode/,
  );
});

test('with quiet looks, what is new is given when so many more have found it the same, and nothing before that', async (t) => {
  const path = join(await tempDirectory(t), 'file');
  const set = createFileSet({ paths: [path], maxBytes: 100, quietLooks: 2 });
  const look = async (): Promise<string | undefined> => {
    const [event] = (await set.look()) ?? [];
    return event?.kind === 'content' ? event.bytes.toString() : event?.kind;
  };
  await writeFile(path, 'whole');
  assert.deepEqual(
    [await look(), await look(), await look(), await look()],
    [undefined, undefined, 'whole', undefined],
  );
  await writeFile(path, '');
  assert.deepEqual([await look(), await look()], [undefined, undefined]);
  await writeFile(path, 'half');
  assert.equal(await look(), undefined);
  await rm(path);
  assert.equal(await look(), undefined);
  await writeFile(path, 'whole again');
  assert.deepEqual([await look(), await look(), await look()], [undefined, undefined, 'whole again']);
  await rm(path);
  assert.deepEqual([await look(), await look(), await look()], [undefined, undefined, 'missing']);
});
