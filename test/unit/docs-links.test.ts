import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const pages = [
  ...globSync('*.md', { cwd: root }),
  ...globSync('{docs,examples}/**/*.md', { cwd: root }),
].sort();

type Link = Readonly<{ page: string; file: string; anchor: string | undefined }>;

/** The links to files of this repository, with paths from its root. */
const links = pages.flatMap((page): readonly Link[] => {
  const text = withoutCode(readFileSync(join(root, page), 'utf8'));
  return [...text.matchAll(/\]\((?!https?:)(?<path>[^)#\s]*)(?:#(?<anchor>[^)\s]*))?\)/g)].map(
    ({ groups }) => ({
      page,
      file: groups?.['path'] === '' ? page : join(dirname(page), groups?.['path'] ?? ''),
      anchor: groups?.['anchor'],
    }),
  );
});

test('a link leads to a file that is there, and to a heading that it has', () => {
  assert.ok(links.length > 50, 'hardly a link was found, so little was checked');
  const broken = links.filter(({ file, anchor }) => {
    const path = join(root, file);
    if (!existsSync(path) || relative(root, path).startsWith('..')) return true;
    return anchor !== undefined && (statSync(path).isDirectory() || !headingsOf(path).includes(anchor));
  });
  assert.deepEqual(broken, []);
});

test('README.md leads to every page', () => {
  const known = new Set(links.filter(({ page }) => page === 'README.md').map(({ file }) => file));
  const here = pages.filter((page) => /^(?:docs\/)?[^/]+$/.test(page) && page !== 'README.md');
  assert.deepEqual(
    here.filter((page) => !known.has(page)),
    [],
  );
});

test('a decision has a number of its own, and says it in its title', () => {
  const files = globSync('docs/adr/*.md', { cwd: root }).sort();
  const numbers = files.map((file) => Number(/adr\/(\d{4})-/.exec(file)?.[1]));
  assert.deepEqual(
    numbers,
    files.map((_, index) => index + 1),
  );
  const titles = files.map((file) => Number(/^# (\d+)/.exec(readFileSync(join(root, file), 'utf8'))?.[1]));
  assert.deepEqual(titles, numbers);
});

/** The anchors of a page as GitHub makes them. */
function headingsOf(path: string): readonly string[] {
  const text = withoutCode(readFileSync(path, 'utf8'));
  return [...text.matchAll(/^#+ (?<title>.+)$/gm)].map(({ groups }) =>
    (groups?.['title'] ?? '')
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-'),
  );
}

function withoutCode(text: string): string {
  return text.replaceAll(/^```[^]*?^```$/gm, '');
}
