import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { type Bundle, parseBundle } from '../../src/policy/bundle/bundle.ts';
import { checkOverlap } from '../../src/policy/bundle/roots.ts';
import { AppError } from '../../src/runtime/errors.ts';
import { opaPath } from '../support/binaries.ts';
import { packBundle } from '../support/bundles.ts';
import { freePort } from '../support/ports.ts';
import { startProcess, tempDirectory, until } from '../support/process.ts';

// A real OPA is given the same bundles, one after the other, as we are; what it then holds is what we must hold.

type Files = Readonly<Record<string, unknown>>;

function pack(files: Files): Buffer {
  return packBundle(
    new Map(Object.entries(files).map(([path, content]) => [path, Buffer.from(JSON.stringify(content))])),
  );
}

type Opa = Readonly<{ document(path: string): Promise<unknown> }>;

/** An OPA that has taken, or refused, every version of every bundle, in order. */
async function opaAfter(t: TestContext, bundles: Readonly<Record<string, readonly Files[]>>): Promise<Opa> {
  const given = new Map<string, number>();
  const asked = new Map<string, number>();
  const server = createServer((request, response) => {
    const name = request.url?.slice(1) ?? '';
    const versions = bundles[name] ?? [];
    asked.set(name, (asked.get(name) ?? 0) + 1);
    const next = given.get(name) ?? 0;
    const version = versions[next];
    if (version === undefined) {
      response.writeHead(304).end();
      return;
    }
    given.set(name, next + 1);
    response.writeHead(200, { 'content-type': 'application/gzip', etag: `"${next}"` }).end(pack(version));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const polling = { min_delay_seconds: 1, max_delay_seconds: 1 };
  const config = {
    services: { here: { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` } },
    bundles: Object.fromEntries(
      Object.keys(bundles).map((name) => [name, { service: 'here', resource: name, polling }]),
    ),
  };
  const file = join(await tempDirectory(t), 'opa.json');
  await writeFile(file, JSON.stringify(config));
  const address = `127.0.0.1:${await freePort()}`;
  await startProcess(t, {
    name: 'opa',
    command: await opaPath(),
    args: ['run', '--server', '--disable-telemetry', '--log-level', 'error', '--addr', address, '-c', file],
  });
  // One more request after the last version was given: by then OPA has done with that.
  const done = (): true | undefined =>
    Object.entries(bundles).every(([name, versions]) => (asked.get(name) ?? 0) > versions.length + 1) ||
    undefined;
  await until('OPA to have all versions', done, { timeoutMs: 120_000 });
  return {
    async document(path) {
      const answer = (await (await fetch(`http://${address}/v1/data/${path}`)).json()) as {
        result?: unknown;
      };
      return answer.result;
    },
  };
}

/** The data that we hold after the same versions, each taken or refused. */
async function oursAfter(versions: readonly Files[]): Promise<Bundle | undefined> {
  let held: Bundle | undefined;
  for (const version of versions) {
    try {
      held = await parseBundle(pack(version), undefined, held);
    } catch (error) {
      assert.ok(error instanceof AppError);
    }
  }
  return held;
}

function dataOf(bundle: Bundle | undefined, root: string): unknown {
  if (bundle === undefined) return undefined;
  return (JSON.parse(Buffer.from(bundle.data).toString()) as Record<string, unknown>)[root];
}

async function compare(
  t: TestContext,
  cases: readonly ((root: string) => readonly Files[])[],
): Promise<void> {
  const bundles = Object.fromEntries(cases.map((versions, index) => [`r${index}`, versions(`r${index}`)]));
  const opa = await opaAfter(t, bundles);
  for (const [root, versions] of Object.entries(bundles)) {
    const held = await oursAfter(versions);
    const what = JSON.stringify(versions);
    assert.deepEqual(dataOf(held, root), await opa.document(root), what);
    const revision = await opa.document(`system/bundles/${root}/manifest/revision`);
    assert.equal(held?.manifest.revision, revision, what);
  }
}

const start = { a: { b: 1, c: [1, 2, 3] }, s: 'x', n: null, e: {}, 'k/l': { '~': 0 }, l: [{ x: 1 }, [7]] };

type Operation = Readonly<{ op: string; path: string; value?: unknown }>;

function afterDelta(operations: readonly Operation[]): (root: string) => readonly Files[] {
  return (root) => {
    const data = operations.map(({ path, ...rest }) => ({ ...rest, path: path.replace('ROOT', root) }));
    return [
      { '.manifest': { revision: 'one', roots: [root] }, 'data.json': { [root]: start } },
      { '.manifest': { revision: 'two', roots: [root] }, 'patch.json': { data } },
    ];
  };
}

test('deltas leave the data that they leave in OPA, or are refused as there', async (t) => {
  const paths = [
    'a/b',
    'a/c/0',
    'a/c/3',
    'a/c/4',
    'a/c/-',
    'a/c/x',
    'a/x',
    'x/y/z',
    's/x',
    's/x/y',
    'n',
    'e/1',
    'k~1l/~0',
    'k%2Fl/~0',
    'a%20b',
    'l/0/x',
    'l/1/0',
    'l/2',
    'l/-/x',
    'l/5/x',
    '',
    'a/c/0/x',
    '-',
    'a//b',
  ];
  const operations = ['upsert', 'replace', 'remove'];
  const single = operations.flatMap((op) =>
    paths.map((path) =>
      afterDelta([{ op, path: `/ROOT/${path}`, ...(op === 'remove' ? {} : { value: { v: [1] } }) }]),
    ),
  );
  const some = fc.record({
    op: fc.constantFrom(...operations),
    path: fc.constantFrom(...paths).map((path) => `/ROOT/${path}`),
    value: fc.jsonValue({ maxDepth: 2 }),
  });
  // What a delta has just put somewhere, OPA cannot remove or replace in the same delta.
  const delta = fc.uniqueArray(some, { minLength: 2, maxLength: 5, selector: ({ path }) => path });
  const several = fc.sample(delta, { numRuns: 60, seed: 20_261_124 });
  const odd: readonly (readonly Operation[])[] = [
    [{ op: 'upsert', path: 'ROOT/a', value: 2 }],
    [{ op: 'upsert', path: '/ROOT/a/', value: 2 }],
    [{ op: 'upsert', path: '/ROOT', value: { all: 'new' } }],
    [{ op: 'remove', path: '/ROOT' }],
    [{ op: 'upsert', path: '/ROOT/a' }],
    [{ op: 'add', path: '/ROOT/a', value: 2 }],
    [{ op: 'upsert', path: '/other/a', value: 2 }],
    [{ op: 'upsert', path: '/ROOTx/a', value: 2 }],
    [{ op: 'upsert', path: '/ROOT/%zz', value: 2 }],
  ];
  await compare(t, [...single, ...several.map(afterDelta), ...odd.map(afterDelta)]);
});

test('the manifest of a delta, and what is beside it, are judged as by OPA', async (t) => {
  const patch = (root: string) => ({ data: [{ op: 'upsert', path: `/${root}/x`, value: 1 }] });
  const snapshot = (root: string) => ({
    '.manifest': { revision: 'one', roots: [root] },
    'data.json': { [root]: {} },
  });
  await compare(t, [
    (root) => [{ '.manifest': { revision: 'two', roots: [root] }, 'patch.json': patch(root) }].slice(1),
    (root) => [snapshot(root), { 'patch.json': patch(root) }],
    (root) => [snapshot(root), { '.manifest': { roots: [root] }, 'patch.json': patch(root) }],
    (root) => [
      snapshot(root),
      { '.manifest': { revision: 'two', roots: [`/${root}/`] }, 'patch.json': patch(root) },
    ],
    (root) => [
      snapshot(root),
      { '.manifest': { revision: 'two', roots: [root, 'z'] }, 'patch.json': patch(root) },
    ],
    (root) => [
      snapshot(root),
      { '.manifest': { revision: 'two', roots: [`${root}/x`] }, 'patch.json': patch(root) },
    ],
    (root) => [
      snapshot(root),
      { '.manifest': { revision: 'two', roots: [root] }, 'patch.json': patch(root) },
      {
        '.manifest': { revision: 'three', roots: [root] },
        'patch.json': { data: [{ op: 'remove', path: `${root}/x` }] },
      },
      { '.manifest': { revision: 'four', roots: [root] }, 'data.json': { [root]: { again: true } } },
    ],
  ]);
});

test('data outside the roots is refused as by OPA, wherever its file is', async (t) => {
  const manifest = (...roots: string[]) => ({ revision: 'one', roots });
  await compare(t, [
    (root) => [{ '.manifest': manifest(root), 'data.json': { [root]: { a: 1 } } }],
    (root) => [{ '.manifest': manifest(root), 'data.json': { [root]: 7 } }],
    (root) => [{ '.manifest': manifest(root), 'data.json': { [root]: 1, [`${root}x`]: 1 } }],
    (root) => [{ '.manifest': manifest(root), 'data.json': {} }],
    (root) => [{ '.manifest': manifest(`${root}/a/b`), 'data.json': { [root]: { a: { b: 1 } } } }],
    (root) => [{ '.manifest': manifest(`${root}/a/b`), 'data.json': { [root]: { a: { c: 1 } } } }],
    (root) => [{ '.manifest': manifest(`${root}/a/b`), 'data.json': { [root]: { a: {} } } }],
    (root) => [{ '.manifest': manifest(`${root}/a/b`), 'data.json': { [root]: { a: 1 } } }],
    (root) => [{ '.manifest': manifest(`${root}/a`, `${root}/b`), 'data.json': { [root]: { a: 1, b: 2 } } }],
    (root) => [{ '.manifest': manifest(`${root}/a`, `${root}/a/b`), 'data.json': { [root]: { a: 1 } } }],
    (root) => [{ '.manifest': manifest(`/${root}/`), 'data.json': { [root]: 1 } }],
    (root) => [{ '.manifest': manifest(root), [`${root}/data.json`]: { a: 1 }, [`${root}/b/data.json`]: 5 }],
    (root) => [{ '.manifest': manifest(root), [`${root}/data.json`]: { b: 1 }, [`${root}/b/data.json`]: 5 }],
    (root) => [
      {
        '.manifest': manifest(root),
        [`${root}/data.json`]: { b: { x: 1 } },
        [`${root}/b/data.json`]: { y: 5 },
      },
    ],
    (root) => [{ '.manifest': manifest(root), 'other/data.json': { a: 1 } }],
    (root) => [{ '.manifest': manifest(root), [`.${root}/data.json`]: { a: 1 } }],
    (root) => [{ '.manifest': manifest(root), 'data.json': [root] }],
    (root) => [{ '.manifest': { revision: 5, roots: [root] }, 'data.json': { [root]: 1 } }],
    (root) => [{ '.manifest': { revision: 'one', roots: root }, 'data.json': { [root]: 1 } }],
    (root) => [
      {
        '.manifest': {
          revision: 'one',
          roots: [root],
          wasm: [{ entrypoint: `${root}/x`, module: '/policy.wasm' }],
        },
        'data.json': {},
      },
    ],
  ]);
});

test('two bundles share a root here when they do in OPA', async (t) => {
  const pairs = [
    ['a', 'a'],
    ['a', 'b'],
    ['a', 'a/b'],
    ['a/b', 'a'],
    ['a/b', 'a/c'],
    ['a/b', 'a/bc'],
    ['a', 'ab'],
    ['a/b/c', 'a/b'],
    ['/a/', 'a'],
    ['a/b/', 'a/b/c'],
  ] as const;
  const bundles = Object.fromEntries(
    pairs.flatMap((roots, index) =>
      roots.map((root, side) => {
        const path = `p${index}/${root.replace(/^\//, '')}`;
        return [
          `b${index}-${side}`,
          [{ '.manifest': { revision: 'one', roots: [path] }, 'data.json': {} }],
        ] as const;
      }),
    ),
  );
  const opa = await opaAfter(t, bundles);
  for (const [index, pair] of pairs.entries()) {
    const names = [0, 1].map((side) => `b${index}-${side}`);
    const revisions = await Promise.all(
      names.map((name) => opa.document(`system/bundles/${name}/manifest/revision`)),
    );
    const together = revisions.every((revision) => revision === 'one');
    const held = await Promise.all(names.map((name) => oursAfter(bundles[name] ?? [])));
    const check = () =>
      checkOverlap(held.map((bundle, side) => ({ name: String(side), roots: bundle?.manifest.roots ?? [] })));
    if (together) check();
    else assert.throws(check, /overlap/, pair.join(' '));
  }
});
