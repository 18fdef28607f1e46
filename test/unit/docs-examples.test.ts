import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { loadConfig } from '../../src/config/load.ts';
import { parseYaml } from '../../src/config/yaml.ts';

const root = new URL('../../', import.meta.url);
/** Top-level keys of our configuration; an example without one is of somebody else's. */
const ours = /^(?:identity|trust_domain|listen|sds|ext_authz|policy|federation|outputs|admin|decision_log):/m;

const pages = [
  'README.md',
  ...(await readdir(new URL('docs/', root)))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];
const examples: { page: string; text: string }[] = [];
for (const page of pages) {
  const content = await readFile(new URL(page, root), 'utf8');
  for (const [, text = ''] of content.matchAll(/^```yaml\n([^]*?)^```$/gm)) {
    if (ours.test(text)) examples.push({ page, text });
  }
}

test('there are examples to look at', () => assert.ok(examples.length >= 4));

for (const { page, text } of examples) {
  test(`an example of ${page} is a configuration: ${Object.keys(parseYaml(text) ?? {}).join(', ')}`, () => {
    const { config } = loadConfig({ text, path: '/etc/svidecar/svidecar.yaml', env: {} });
    assert.ok(config.listen !== undefined);
  });
}
