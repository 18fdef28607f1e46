import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import fc from 'fast-check';
import { parsePid, sendReloadSignal } from '../../../src/outputs/reload-signal.ts';
import { AppError } from '../../../src/runtime/errors.ts';

const { uid } = userInfo();

async function pidFile(t: TestContext, text: string, mode = 0o644): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'svidecar-pid-'));
  t.after(() => rm(directory, { recursive: true }));
  const path = join(directory, 'app.pid');
  await writeFile(path, text);
  await chmod(path, mode);
  return path;
}

async function send(path: string, ourUid = uid, failure?: Error): Promise<readonly string[]> {
  const sent: string[] = [];
  await sendReloadSignal({ pidFile: path, name: 'SIGHUP' }, ourUid, (pid, name) => {
    if (failure !== undefined) throw failure;
    sent.push(`${pid} ${name}`);
  });
  return sent;
}

const systemError = (code: string): Error => Object.assign(new Error(`kill ${code}`), { code });

describe('the reload signal', () => {
  it('goes to the process that the pid file names', async (t) => {
    assert.deepEqual(await send(await pidFile(t, '4711\n')), ['4711 SIGHUP']);
    assert.deepEqual(await send(await pidFile(t, '4711', 0o600)), ['4711 SIGHUP']);
  });

  it('is not sent on the word of a file that others may write', async (t) => {
    for (const mode of [0o664, 0o646, 0o666]) {
      await assert.rejects(send(await pidFile(t, '4711', mode)), { code: 'permission_denied' });
    }
  });

  it('is not sent on the word of a file of somebody else, unless that is root', async (t) => {
    const path = await pidFile(t, '4711');
    const stranger = uid + 1;
    if (uid === 0) assert.deepEqual(await send(path, stranger), ['4711 SIGHUP']);
    else await assert.rejects(send(path, stranger), /belongs to uid/);
  });

  it('is not sent through a link, a directory or a missing file', async (t) => {
    const path = await pidFile(t, '4711');
    await symlink(path, `${path}.link`);
    await assert.rejects(send(`${path}.link`), /symbolic link/);
    await mkdir(`${path}.directory`);
    await assert.rejects(send(`${path}.directory`), /no regular file/);
    await assert.rejects(send(`${path}.missing`), { code: 'not_found' });
  });

  it('never goes to a group of processes or to what is no number', async (t) => {
    for (const text of ['0', '-1', '-4711', '', ' ', '1e3', '0x10', '12 13', '99999999', '4194305', '１']) {
      await assert.rejects(send(await pidFile(t, text)), { code: 'malformed' }, JSON.stringify(text));
    }
  });

  it('says when the process is gone or belongs to somebody else', async (t) => {
    const path = await pidFile(t, '4711');
    await assert.rejects(send(path, uid, systemError('ESRCH')), {
      code: 'not_found',
      message: /does not run/,
    });
    await assert.rejects(send(path, uid, systemError('EPERM')), /run it as the same user/);
  });

  it('reads any text as a process ID or refuses it', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.integer().map(String)), (text) => {
        try {
          const pid = parsePid(text, 'app.pid');
          assert.ok(pid >= 1 && pid <= 4_194_304);
        } catch (error) {
          assert.ok(error instanceof AppError);
        }
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4_194_304 }), (pid) => {
        assert.equal(parsePid(`${pid}\n`, 'app.pid'), pid);
      }),
    );
  });
});
