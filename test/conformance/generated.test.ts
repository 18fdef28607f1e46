import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { it } from 'node:test';
import { protoDirectory, protoFiles } from '../../src/grpc/protos.ts';

const root = dirname(protoDirectory);
const generator = createRequire(import.meta.url).resolve(
  '@grpc/proto-loader/build/bin/proto-loader-gen-types.js',
);
const flags = [
  '--longs',
  'String',
  '--enums',
  'String',
  '--defaults',
  '--oneofs',
  '--importFileExtension',
  '.ts',
];

function filesBelow(folder: string): Record<string, string> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  const paths = entries.map((entry) => join(entry.parentPath, entry.name)).sort();
  return Object.fromEntries(paths.map((path) => [path.slice(folder.length), readFileSync(path, 'utf8')]));
}

it('src/grpc/generated is what npm run generate makes of proto/', () => {
  const folder = mkdtempSync(join(tmpdir(), 'generated-'));
  try {
    const args = [generator, ...flags, '--includeDirs', 'proto', '--outDir', folder, ...protoFiles];
    execFileSync(process.execPath, args, { cwd: root });
    const fresh = filesBelow(folder);
    assert.ok(Object.keys(fresh).length > 40);
    assert.deepEqual(filesBelow(join(root, 'src/grpc/generated')), fresh);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
