import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { chmod, lstat, mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { describe, it } from 'node:test';
import { buildSet, type OutputSpec, type SetFile } from '../../../src/outputs/output-set.ts';
import { outputError, removeOldSets, withdrawSet, writeSet } from '../../../src/outputs/write-set.ts';
import { runProcess, startProcess, until } from '../../support/process.ts';
import { newSvid, outputDirectory, read, snapshotOf, specOf, withPartner } from './sets.ts';

async function newSet(spec: OutputSpec): Promise<readonly SetFile[]> {
  const svid = await newSvid();
  return buildSet(spec, { svid, snapshot: snapshotOf(svid, { bundles: withPartner }), tokens: new Map() });
}

/** Reads key and certificate of whatever `path` leads to; true when they belong together. */
async function isPair(path: string): Promise<boolean> {
  const certificate = new X509Certificate(await readFile(join(path, 'svid.pem')));
  return certificate.checkPrivateKey(createPrivateKey(await readFile(join(path, 'svid.key'))));
}

const setsIn = async (directory: string): Promise<readonly string[]> =>
  (await readdir(directory)).filter((name) => name.startsWith('..svidecar-'));

const modeOf = async (path: string): Promise<number> => (await stat(path)).mode & 0o7777;

describe('writing a set', () => {
  it('makes the directory, and every name leads through one link into the set', async (t) => {
    const spec = specOf(await outputDirectory(t), { federated: true });
    const files = await newSet(spec);
    const { name } = await writeSet(spec.directory, files, spec);
    assert.equal(await readlink(join(spec.directory, '..data')), name);
    for (const file of ['svid.pem', 'svid.key', 'bundle.pem', 'federated']) {
      assert.equal(await readlink(join(spec.directory, file)), `..data/${file}`);
    }
    for (const { name: file, content } of files) {
      assert.equal(await read(spec.directory, file), content.toString());
    }
  });

  it('gives files exactly their modes, each time, whatever the umask and whoever changed them', async (t) => {
    const spec = specOf(await outputDirectory(t), { mode: 0o664, secretMode: 0o640 });
    const umask = process.umask(0o077);
    t.after(() => process.umask(umask));
    for (let round = 0; round < 2; round += 1) {
      await writeSet(spec.directory, await newSet(spec), spec);
      assert.equal(await modeOf(join(spec.directory, 'svid.pem')), 0o664);
      assert.equal(await modeOf(join(spec.directory, 'bundle.pem')), 0o664);
      assert.equal(await modeOf(join(spec.directory, 'svid.key')), 0o640);
      assert.equal(await modeOf(join(spec.directory, '..data/')), 0o755);
      await chmod(join(spec.directory, 'svid.key'), 0o666);
    }
  });

  it('never shows a certificate with the key of another to who reads through ..data', async (t) => {
    const spec = specOf(await outputDirectory(t));
    const sets = await Promise.all(Array.from({ length: 10 }, () => newSet(spec)));
    await writeSet(spec.directory, sets[0] ?? [], spec);
    const inForce = () => readlink(join(spec.directory, '..data'));
    const rotated = new AbortController();
    let read = 0;
    const seen = new Set<string>();
    const readers = Array.from({ length: 3 }, async () => {
      while (!rotated.signal.aborted) {
        const set = await inForce();
        const pair = await isPair(join(spec.directory, set)).catch(() => false);
        // A set that two others have replaced meanwhile may be gone, on a machine this busy.
        if (!pair && (await inForce()) !== set) continue;
        assert.ok(pair, 'a pinned set is a pair');
        seen.add(set);
        read += 1;
      }
    });
    // By name it takes a look at the link before and after to know that nothing was switched between.
    const byName = async (): Promise<void> => {
      while (!rotated.signal.aborted) {
        const before = await inForce();
        const pair = await isPair(spec.directory).catch(() => false);
        if ((await inForce()) === before) assert.ok(pair, 'names are a pair');
      }
    };
    readers.push(byName());
    const rotate = async (): Promise<void> => {
      let last = await readlink(join(spec.directory, '..data'));
      for (let round = 1; round <= 200; round += 1) {
        const { name } = await writeSet(spec.directory, sets[round % sets.length] ?? [], spec);
        await removeOldSets(spec.directory, [name, last]);
        last = name;
      }
      rotated.abort();
    };
    await Promise.all([...readers, rotate()]);
    assert.ok(read > 100 && seen.size > 20, `read ${read} times from ${seen.size} sets`);
  });

  it('leaves a whole set and no mixture behind when it is killed at any moment', async (t) => {
    const directory = await outputDirectory(t);
    for (const delayMs of [0, 1, 3, 7, 12, 20]) {
      const writer = await startProcess(t, {
        name: 'writer',
        command: process.execPath,
        args: [join(import.meta.dirname, 'writer-process.ts'), 'forever', directory],
      });
      const link = () => readlink(join(directory, '..data')).catch(() => undefined);
      const before = await link();
      await until('a set to be written', async () => ((await link()) === before ? undefined : true));
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      await writer.crash();
      assert.ok(await isPair(directory));
    }
    const spec = specOf(directory);
    const { name } = await writeSet(directory, await newSet(spec), spec);
    await removeOldSets(directory, [name]);
    assert.deepEqual((await readdir(directory)).sort(), [
      '..data',
      name,
      'bundle.pem',
      'svid.key',
      'svid.pem',
    ]);
  });

  it('keeps the old set when the new one does not fit on the disk', async (t) => {
    const spec = specOf(await outputDirectory(t));
    await writeSet(spec.directory, await newSet(spec), spec);
    const before = await read(spec.directory, 'svid.pem');
    // A limit on the size of files stops a write in the middle, as a full disk does.
    const { output } = await runProcess(t, {
      name: 'writer',
      command: 'sh',
      args: [
        '-c',
        `trap '' XFSZ; ulimit -f 1; exec "$0" "$@"`,
        process.execPath,
        join(import.meta.dirname, 'writer-process.ts'),
        'once',
        spec.directory,
      ],
    });
    assert.match(output, /^files cannot be written to .*: a file is larger than this process may write/m);
    assert.equal(await read(spec.directory, 'svid.pem'), before);
    assert.ok(await isPair(spec.directory));
    assert.equal((await setsIn(spec.directory)).length, 1, 'the half-written set is removed');
  });

  it('says what to do about what the system refuses', () => {
    const said = (code: string): string =>
      outputError(Object.assign(new Error('failed'), { code }), '/run/svid').message;
    assert.equal(
      said('ENOSPC'),
      'files cannot be written to /run/svid: no space is left on the device: free some',
    );
    assert.match(said('EACCES'), /let the user of the sidecar write there/);
    assert.match(said('EROFS'), /mount it writable/);
    assert.match(said('EIO'), /failed$/);
  });

  it('writes nothing where everybody could swap it', async (t) => {
    const spec = specOf(await outputDirectory(t));
    await mkdir(spec.directory);
    await chmod(spec.directory, 0o777);
    await assert.rejects(writeSet(spec.directory, await newSet(spec), spec), /everyone may write to/);
    assert.deepEqual(await readdir(spec.directory), []);
  });

  it('deletes nothing that somebody puts in the place of its own in such a directory', async (t) => {
    const spec = specOf(await outputDirectory(t));
    await mkdir(spec.directory);
    await chmod(spec.directory, 0o777);
    const swapped: string[] = [];
    let over = false;
    const swap = (): void => {
      const made = readdirSync(spec.directory).find((name) => name.startsWith('..svidecar-'));
      if (made === undefined) {
        if (!over) setImmediate(swap);
        return;
      }
      const path = join(spec.directory, made);
      renameSync(path, `${spec.directory}.moved`);
      mkdirSync(path);
      writeFileSync(join(path, 'precious'), '');
      swapped.push(path);
    };
    setImmediate(swap);
    for (let attempt = 0; attempt < 100 && swapped.length === 0; attempt += 1) {
      await assert.rejects(writeSet(spec.directory, await newSet(spec), spec), /everyone may write to/);
    }
    over = true;
    const [path = 'not swapped'] = swapped;
    assert.deepEqual(await readdir(path), ['precious']);
  });

  it('refuses a name that is a directory before anything is in force', async (t) => {
    const spec = specOf(await outputDirectory(t));
    await mkdir(join(spec.directory, 'svid.key'), { recursive: true });
    await assert.rejects(writeSet(spec.directory, await newSet(spec), spec), {
      code: 'conflict',
      message: `${join(spec.directory, 'svid.key')} is a directory: remove it, or choose another name`,
    });
    assert.deepEqual(await readdir(spec.directory), ['svid.key']);
  });

  it('takes the place of a file of the same name, and leaves other files alone', async (t) => {
    const spec = specOf(await outputDirectory(t));
    await mkdir(spec.directory);
    await writeFile(join(spec.directory, 'svid.pem'), 'written by another tool');
    await writeFile(join(spec.directory, 'mine.txt'), 'mine');
    await symlink('/etc/hostname', join(spec.directory, 'link.txt'));
    const { name } = await writeSet(spec.directory, await newSet(spec), spec);
    await removeOldSets(spec.directory, [name]);
    assert.ok((await lstat(join(spec.directory, 'svid.pem'))).isSymbolicLink());
    assert.ok(await isPair(spec.directory));
    assert.equal(await read(spec.directory, 'mine.txt'), 'mine');
    assert.equal(await readlink(join(spec.directory, 'link.txt')), '/etc/hostname');
  });

  it('takes away the names of what is no longer written', async (t) => {
    const spec = specOf(await outputDirectory(t), { federated: true, certificate: 'old.pem' });
    await writeSet(spec.directory, await newSet(spec), spec);
    const renamed = { ...spec, certificate: 'new.pem', federated: false };
    await writeSet(spec.directory, await newSet(renamed), renamed);
    const names = (await readdir(spec.directory)).filter((name) => !name.startsWith('..'));
    assert.deepEqual(names.sort(), ['bundle.pem', 'new.pem', 'svid.key']);
  });

  it('keeps the set before until it is told otherwise', async (t) => {
    const spec = specOf(await outputDirectory(t));
    const first = await writeSet(spec.directory, await newSet(spec), spec);
    const second = await writeSet(spec.directory, await newSet(spec), spec);
    const third = await writeSet(spec.directory, await newSet(spec), spec);
    await removeOldSets(spec.directory, [second.name, third.name]);
    assert.deepEqual([second.previous, third.previous], [first.name, second.name]);
    assert.deepEqual(await setsIn(spec.directory), [second.name, third.name].sort());
    assert.ok(await isPair(join(spec.directory, second.name)), `${first.name} went, its follower stays`);
    await removeOldSets(spec.directory, [third.name]);
    assert.deepEqual(await setsIn(spec.directory), [third.name]);
  });

  it('can be taken back: no key is left, and the names lead nowhere', async (t) => {
    const spec = specOf(await outputDirectory(t));
    await writeSet(spec.directory, await newSet(spec), spec);
    await withdrawSet(spec.directory);
    assert.deepEqual(await setsIn(spec.directory), []);
    await assert.rejects(read(spec.directory, 'svid.key'), { code: 'ENOENT' });
    await writeSet(spec.directory, await newSet(spec), spec);
    assert.ok(await isPair(spec.directory));
  });
});
