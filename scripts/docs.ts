import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { generatedFiles } from './generated-files.ts';

// Writes the committed files that are made from code; with --check it only says which of them are out of date.
const root = join(import.meta.dirname, '..');
const check = process.argv.includes('--check');
for (const { path, text } of generatedFiles(root)) {
  const file = join(root, path);
  if (!check) writeFileSync(file, text);
  else if (readFileSync(file, 'utf8') !== text) {
    process.stderr.write(`${path} is out of date: run \`npm run docs\` and commit it\n`);
    process.exitCode = 1;
  }
}
