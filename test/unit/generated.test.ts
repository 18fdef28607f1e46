import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { generatedFiles } from '../../scripts/generated-files.ts';

const root = join(import.meta.dirname, '../..');

describe('generated files', () => {
  for (const { path, text } of generatedFiles(root)) {
    it(`${path} is what its code makes (else: npx node scripts/generate.ts)`, () => {
      assert.equal(readFileSync(join(root, path), 'utf8'), text);
    });
  }
});
