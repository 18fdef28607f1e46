import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const src = join(root, 'src');

/** What each room may import besides itself. docs/architecture.md shows the same table to people. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  runtime: [],
  spiffe: ['runtime'],
  http: ['spiffe', 'runtime'],
  trust: ['spiffe', 'runtime'],
  tokens: ['spiffe', 'runtime'],
  policy: ['trust', 'http', 'spiffe', 'runtime'],
  grpc: ['runtime'],
  telemetry: ['runtime'],
  config: ['spiffe', 'runtime'],
  envoy: ['config', 'runtime'],
  workload: ['spiffe', 'grpc', 'runtime'],
  federation: ['http', 'spiffe', 'trust', 'runtime'],
  sds: ['trust', 'tokens', 'spiffe', 'grpc', 'runtime'],
  extauthz: ['trust', 'policy', 'tokens', 'http', 'spiffe', 'grpc', 'runtime'],
  outputs: ['trust', 'tokens', 'spiffe', 'runtime'],
  admin: ['trust', 'tokens', 'spiffe', 'runtime'],
  stack: ['config', 'envoy', 'spiffe', 'runtime'],
};

/** The rooms, and the bin, that may import every room. */
const everything = new Set(['cli', 'app', 'main.ts']);

/** Packages that more than one file of their room imports, and why that is fine. */
const wideDoors: Readonly<Record<string, string>> = {
  zod: 'the schema is cut into fields, sections and the walk over them',
};

/** The files that may call JSON.parse, and why: it misreads escaped keys (runtime/parse-json.ts), and others bring those. */
const mayParse: Readonly<Record<string, string>> = {
  'runtime/parse-json.ts': 'is what the others use',
  'extauthz/body/exact-json.ts': 'what parseJson gives it',
  'spiffe/json.ts': 'what parseJson gives it, and single strings',
  'policy/bundle/json-tree.ts': 'single strings',
  'policy/builtins/value.ts': 'single strings, and whether a text is JSON',
  'policy/builtins/jwt-keys.ts': 'a text of ours',
  'policy/opa/push-item.ts': 'whether a text is JSON',
  'stack/demo-scenes.ts': 'a log of ours',
  'cli/version.ts': 'our package.json',
};

type Import = Readonly<{ file: string; specifier: string }>;

const files = globSync('**/*.ts', { cwd: src }).sort();
const sources = new Map(files.map((file) => [file, withoutComments(readFileSync(join(src, file), 'utf8'))]));
const imports = [...sources].flatMap(([file, text]) => importsOf(file, text));

test('a room imports only the rooms that stand below it', () => {
  const local = imports.filter(({ specifier }) => specifier.startsWith('.'));
  assert.ok(local.length > 0, 'no import was found, so nothing was checked');
  const wrong = local.filter(({ file, specifier }) => {
    const from = roomOf(file);
    const to = roomOf(relative(src, join(src, dirname(file), specifier)));
    return from !== to && !everything.has(from) && !(mayImport[from] ?? []).includes(to);
  });
  assert.deepEqual(wrong, []);
});

test('JSON from outside is read by parseJson', () => {
  const parsing = [...sources].filter(([, text]) => text.includes('JSON.parse')).map(([file]) => file);
  assert.deepEqual(parsing, Object.keys(mayParse).sort());
});

test('every room stands in the table', () => {
  const rooms = new Set(files.map(roomOf));
  assert.deepEqual(
    [...rooms].filter((room) => mayImport[room] === undefined && !everything.has(room)),
    [],
  );
});

test('the table has no cycle', () => {
  const visit = (room: string, path: readonly string[]): void => {
    assert.ok(!path.includes(room), `cycle: ${[...path, room].join(' → ')}`);
    for (const below of mayImport[room] ?? []) visit(below, [...path, room]);
  };
  for (const room of Object.keys(mayImport)) visit(room, []);
});

test('no file needs one that needs it, not even for a type', () => {
  const needs = Map.groupBy(
    imports.filter(({ specifier }) => specifier.startsWith('.')),
    ({ file }) => file,
  );
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    const circle = path.indexOf(file);
    assert.ok(circle < 0, `circle: ${[...path.slice(circle), file].join(' → ')}`);
    // What protoc's kin writes refers to itself as the protos do.
    if (done.has(file) || file.includes('/generated/')) return;
    for (const { specifier } of needs.get(file) ?? []) {
      visit(relative(src, join(src, dirname(file), specifier)), [...path, file]);
    }
    done.add(file);
  };
  for (const file of files) visit(file, []);
});

test('docs/architecture.md shows the table as it is', () => {
  const text = readFileSync(join(root, 'docs/architecture.md'), 'utf8');
  const rows = text.matchAll(/^\| `(?<room>[\w-]+)\/` \|[^|]*\| (?<below>[^|]*) \|$/gm);
  const shown = Object.fromEntries(
    [...rows].map(({ groups }) => [
      groups?.room ?? '',
      (groups?.below ?? '')
        .split(/[ ,]+/)
        .filter((word) => word !== '' && word !== 'nothing')
        .sort(),
    ]),
  );
  const held = Object.entries(mayImport).map(([room, below]) => [room, [...below].sort()]);
  assert.deepEqual(shown, Object.fromEntries(held));
});

test('a package has one door: one file, or one room where that is allowed by name', () => {
  const doors = new Map<string, Set<string>>();
  for (const { file, specifier } of imports) {
    if (specifier.startsWith('.') || specifier.startsWith('node:') || file.includes('/generated/')) continue;
    const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
    const door = wideDoors[name] === undefined ? file : roomOf(file);
    doors.set(name, (doors.get(name) ?? new Set()).add(door));
  }
  const wide = [...doors].filter(([, where]) => where.size > 1).map(([name, where]) => [name, ...where]);
  assert.deepEqual(wide, []);
});

test('only main.ts touches process', () => {
  const wrong = [...sources].filter(
    ([file, text]) =>
      file !== 'main.ts' && /(?<![\w$./-])process(?:\??\.\w|\[)|['"](?:node:)?process['"]/.test(text),
  );
  assert.deepEqual(
    wrong.map(([file]) => file),
    [],
  );
});

test('an import names its module in full, so that this test can read it', () => {
  const wrong = [...sources].filter(([, text]) => /\bimport\s*\(\s*(?!['"])|\brequire\s*\(/.test(text));
  assert.deepEqual(
    wrong.map(([file]) => file),
    [],
  );
});

function roomOf(file: string): string {
  return file.split('/')[0] ?? file;
}

/** Static, type and dynamic imports, re-exports, and modules named by URL as workers are. */
function importsOf(file: string, text: string): readonly Import[] {
  const pattern =
    /\b(?:from|import)\s*\(?\s*['"](?<module>[^'"\n]+)['"]|new URL\(\s*['"](?<url>\.[^'"\n]+\.[jt]s)['"]/g;
  return [...text.matchAll(pattern)].map(({ groups }) => ({
    file,
    specifier: groups?.module ?? groups?.url ?? '',
  }));
}

/** Blanks comments, but not what only looks like one inside a string or template. */
function withoutComments(text: string): string {
  return text.replaceAll(
    /(?<kept>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (_, kept: string | undefined) => kept ?? ' ',
  );
}

test('no symbolic link is committed: merging one over a directory of its name empties that', () => {
  if (!existsSync(join(root, '.git'))) return;
  const listed = execFileSync('git', ['ls-files', '--stage'], { cwd: root, encoding: 'utf8' });
  assert.deepEqual(
    listed.split('\n').filter((line) => line.startsWith('120000')),
    [],
  );
});
