import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { readBearerFile } from '../../../../src/policy/bundle/bearer-file.ts';
import { AppError } from '../../../../src/runtime/errors.ts';
import { tempDirectory } from '../../../support/process.ts';

test('a token is read anew each time, without the white space around it', async (t) => {
  const path = join(await tempDirectory(t), 'token');
  await writeFile(path, ' abc.DEF-1_2~3+/==\r\n');
  assert.equal(await readBearerFile(path), 'abc.DEF-1_2~3+/==');
  await writeFile(path, 'next');
  assert.equal(await readBearerFile(path), 'next');
});

test('what is no token is refused, and none of it is told', async (t) => {
  const directory = await tempDirectory(t);
  const path = join(directory, 'token');
  const contents = ['', ' \n', 's3cret\r\nx-admin: 1', 's3cret s3cret', 's3cret\0', 's3crét', '=s3cret'];
  for (const content of [...contents, `s3cret${'x'.repeat(16 * 1024)}`]) {
    await writeFile(path, content);
    await assert.rejects(readBearerFile(path), (error) => {
      assert.ok(error instanceof AppError);
      assert.ok(error.message.includes(path));
      assert.doesNotMatch(error.message, /s3cr/);
      return true;
    });
  }
  const fifo = join(directory, 'fifo');
  execFileSync('mkfifo', [fifo]);
  await assert.rejects(readBearerFile(fifo), /is empty/);
  for (const missing of [join(directory, 'none'), directory]) {
    await assert.rejects(readBearerFile(missing), /cannot be read: (?:ENOENT|EISDIR)/);
  }
});
