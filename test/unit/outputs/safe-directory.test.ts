import assert from 'node:assert/strict';
import { chmod, mkdir, stat, symlink } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { makeDirectory, requireSafeDirectory } from '../../../src/outputs/safe-directory.ts';
import { outputDirectory } from './sets.ts';

const { uid } = userInfo();

describe('the directory of files', () => {
  it('is made for all to read, and left as it is when it is there', async (t) => {
    const directory = await outputDirectory(t);
    await makeDirectory(directory);
    assert.equal((await stat(directory)).mode & 0o7777, 0o755);
    await chmod(directory, 0o700);
    await makeDirectory(directory);
    assert.equal((await stat(directory)).mode & 0o7777, 0o700);
    await requireSafeDirectory(directory, uid);
  });

  it('is not made together with its parents', async (t) => {
    const directory = await outputDirectory(t);
    await assert.rejects(makeDirectory(join(directory, 'deep')), { code: 'ENOENT' });
  });

  it('may not be one that everybody can write to, sticky or not', async (t) => {
    const directory = await outputDirectory(t);
    await makeDirectory(directory);
    for (const mode of [0o777, 0o1777, 0o702]) {
      await chmod(directory, mode);
      await assert.rejects(requireSafeDirectory(directory, uid), /everyone may write to/);
    }
  });

  it('may lie below a sticky directory, and below no other that everybody can write to', async (t) => {
    const directory = await outputDirectory(t);
    await makeDirectory(directory);
    await chmod(dirname(directory), 0o1777);
    await requireSafeDirectory(directory, uid);
    await chmod(dirname(directory), 0o777);
    await assert.rejects(requireSafeDirectory(directory, uid), /everyone may write to/);
  });

  it('is judged by where a link leads', async (t) => {
    const directory = await outputDirectory(t);
    await makeDirectory(directory);
    const open = `${directory}.open`;
    await mkdir(open);
    await chmod(open, 0o777);
    await mkdir(join(open, 'inner'));
    await symlink(join(open, 'inner'), join(directory, 'link'));
    await assert.rejects(requireSafeDirectory(join(directory, 'link'), uid), /everyone may write to/);
  });

  it('may not belong to a stranger', async (t) => {
    const directory = await outputDirectory(t);
    await makeDirectory(directory);
    if (uid === 0) await requireSafeDirectory(directory, uid + 1);
    else await assert.rejects(requireSafeDirectory(directory, uid + 1), /belongs to uid/);
  });
});
