import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { bootstrapSamples } from '../../scripts/bootstrap-samples.ts';
import { envoyPath } from '../support/binaries.ts';

const root = join(import.meta.dirname, '../..');
const run = promisify(execFile);

describe('bootstrap samples', () => {
  for (const { path } of bootstrapSamples(root)) {
    it(`${path} is taken by a real Envoy`, async () => {
      const file = join(root, path);
      const { stdout } = await run(await envoyPath(), [
        '--mode',
        'validate',
        '-c',
        file,
        '--log-level',
        'error',
      ]);
      assert.match(stdout, / OK$/m);
    });
  }
});
