import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Listener, listenTcp, listenUnix } from '../../../src/grpc/listener.ts';
import { AppError, type ErrorCode } from '../../../src/runtime/errors.ts';
import { temporaryDirectory } from './echo.ts';

const childFile = fileURLToPath(new URL('listener-child.ts', import.meta.url));
const children = new Set<ChildProcess>();

after(() => {
  for (const child of children) child.kill('SIGKILL');
});

function listenAt(path: string, mode = 0o660): Promise<Listener> {
  return listenUnix({ path, mode, maxConnections: 10 }, (socket) => {
    socket.on('error', () => {});
    socket.end(`${process.pid}`);
  });
}

/** What the one that serves at `path` has to say. */
async function ask(path: string): Promise<string> {
  const socket = connect(path);
  await once(socket, 'connect');
  return text(socket);
}

function failure(code: ErrorCode, ...parts: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, code, error.message);
    for (const part of parts) assert.ok(error.message.includes(part), error.message);
    return true;
  };
}

async function startChild(path: string, startAt = 0): Promise<{ child: ChildProcess; said: string }> {
  const child = spawn(process.execPath, [childFile, path, String(startAt)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.add(child);
  const [chunk] = await once(child.stdout, 'data');
  return { child, said: String(chunk).trim() };
}

async function kill(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
  children.delete(child);
}

/** Leaves a socket at `path` that nobody serves, as a killed process does. */
async function leaveDeadSocket(path: string): Promise<void> {
  const first = createServer();
  await listening(first, `${path}.first`);
  linkSync(`${path}.first`, path);
  first.close();
  await once(first, 'close');
  await assert.rejects(ask(path), { code: 'ECONNREFUSED' });
}

async function listening(server: Server, path: string): Promise<void> {
  server.listen(path);
  await once(server, 'listening');
}

describe('a unix socket', () => {
  it('has the mode it was given and leaves nothing beside it', async () => {
    using directory = temporaryDirectory();
    for (const mode of [0o600, 0o660, 0o666]) {
      const path = join(directory.path, `${mode}.sock`);
      const listener = await listenAt(path, mode);
      assert.equal(lstatSync(path).mode & 0o777, mode);
      assert.deepEqual(readdirSync(directory.path), [`${mode}.sock`]);
      await listener.close();
      assert.deepEqual(readdirSync(directory.path), []);
    }
  });

  it('can be closed twice', async () => {
    using directory = temporaryDirectory();
    const listener = await listenAt(join(directory.path, 'a.sock'));
    await listener.close();
    await listener.close();
  });

  it('is not taken from a live process, and is served on', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a.sock');
    const listener = await listenAt(path);
    await assert.rejects(listenAt(path), failure('conflict', 'already serves', path, 'stop it'));
    assert.equal(await ask(path), String(process.pid));
    assert.deepEqual(readdirSync(directory.path), ['a.sock']);
    await listener.close();
  });

  it('is taken over from a process that was killed', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a.sock');
    const first = await startChild(path);
    assert.equal(first.said, 'listening');
    assert.equal(await ask(path), String(first.child.pid));
    await kill(first.child);
    assert.ok(existsSync(path), 'a killed process leaves its socket behind');
    const second = await startChild(path);
    assert.equal(second.said, 'listening');
    assert.equal(await ask(path), String(second.child.pid));
    await kill(second.child);
  });

  it('goes to exactly one of many starters at once, over a dead socket and a dead lock', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a.sock');
    await leaveDeadSocket(path);
    await leaveDeadSocket(join(directory.path, '.svidecar'));
    const startAt = Date.now() + 1000;
    const started = await Promise.all(Array.from({ length: 6 }, () => startChild(path, startAt)));
    const winners = started.filter(({ said }) => said === 'listening');
    assert.equal(winners.length, 1, started.map(({ said }) => said).join('\n'));
    assert.equal(await ask(path), String(winners[0]?.child.pid));
    for (const { said } of started) assert.match(said, /^listening$|already serves/);
    assert.deepEqual(readdirSync(directory.path), ['a.sock']);
    for (const { child } of winners) await kill(child);
  });

  it('goes to exactly one of many starters in one process', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a.sock');
    const results = await Promise.allSettled(Array.from({ length: 10 }, () => listenAt(path)));
    const listeners = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    assert.equal(listeners.length, 1);
    assert.deepEqual(readdirSync(directory.path), ['a.sock']);
    await listeners[0]?.close();
  });

  it('is started although a killed process left its lock, and the lock of that lock', async () => {
    using directory = temporaryDirectory();
    await leaveDeadSocket(join(directory.path, '.svidecar'));
    await leaveDeadSocket(join(directory.path, '.svidecar~'));
    const listener = await listenAt(join(directory.path, 'a.sock'));
    assert.deepEqual(readdirSync(directory.path), ['a.sock']);
    await listener.close();
  });

  it('waits for a live starter beside it', async () => {
    using directory = temporaryDirectory();
    const lock = createServer((socket) => socket.destroy());
    await listening(lock, join(directory.path, '.svidecar'));
    let settled = false;
    const starting = listenAt(join(directory.path, 'a.sock')).finally(() => {
      settled = true;
    });
    await once(lock, 'connection');
    await once(lock, 'connection');
    assert.equal(settled, false);
    lock.close();
    await (await starting).close();
  });

  it('is not unlinked on close once another one stands in its place', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a.sock');
    const listener = await listenAt(path);
    // Someone removes the name by hand and starts another server there.
    unlinkSync(path);
    const second = await listenAt(path);
    const { ino } = lstatSync(path);
    await listener.close();
    assert.equal(lstatSync(path).ino, ino);
    assert.equal(await ask(path), String(process.pid));
    await second.close();
    assert.equal(existsSync(path), false);
  });

  it('replaces nothing that is no socket', async () => {
    using directory = temporaryDirectory();
    const file = join(directory.path, 'file');
    writeFileSync(file, 'precious');
    const link = join(directory.path, 'link');
    symlinkSync('nowhere', link);
    const folder = join(directory.path, 'folder');
    mkdirSync(folder);
    for (const path of [file, link, folder]) {
      await assert.rejects(listenAt(path), failure('conflict', 'is no socket', 'remove it'));
    }
    assert.deepEqual(readdirSync(directory.path).sort(), ['file', 'folder', 'link']);
  });

  it('does not remove a lock that is no socket', async () => {
    using directory = temporaryDirectory();
    writeFileSync(join(directory.path, '.svidecar'), '');
    await assert.rejects(
      listenAt(join(directory.path, 'a.sock')),
      failure('conflict', '.svidecar', 'remove it'),
    );
    assert.deepEqual(readdirSync(directory.path), ['.svidecar']);
  });

  it('needs a directory that exists', async () => {
    using directory = temporaryDirectory();
    await assert.rejects(
      listenAt(join(directory.path, 'absent', 'a.sock')),
      failure('not_found', join(directory.path, 'absent'), 'create it'),
    );
    writeFileSync(join(directory.path, 'file'), '');
    await assert.rejects(
      listenAt(join(directory.path, 'file', 'a.sock')),
      failure('not_found', 'is no directory'),
    );
  });

  it('needs a directory that not everyone may write to, unless it is sticky and that was allowed', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a.sock');
    chmodSync(directory.path, 0o777);
    await assert.rejects(listenAt(path), failure('permission_denied', 'everyone may write', directory.path));
    const options = { path, mode: 0o600, maxConnections: 1, allowStickyParent: true };
    await assert.rejects(
      listenUnix(options, () => {}),
      failure('permission_denied', 'everyone may write'),
    );
    chmodSync(directory.path, 0o1777);
    await assert.rejects(listenAt(path), failure('permission_denied', 'everyone may write'));
    const listener = await listenUnix(options, () => {});
    await listener.close();
    assert.deepEqual(readdirSync(directory.path), []);
  });

  it('needs a directory that this process may write to', async () => {
    using directory = temporaryDirectory();
    chmodSync(directory.path, 0o555);
    const path = join(directory.path, 'a.sock');
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) process.seteuid?.(65_534);
    try {
      await assert.rejects(listenAt(path), failure('permission_denied', path, 'let this process write'));
    } finally {
      if (isRoot) process.seteuid?.(0);
      chmodSync(directory.path, 0o755);
    }
  });

  it('needs a directory of its own user or root', {
    skip: process.geteuid?.() !== 0 && 'only root can give one away',
  }, async () => {
    using directory = temporaryDirectory();
    chownSync(directory.path, 65_534, 65_534);
    const path = join(directory.path, 'a.sock');
    await assert.rejects(
      listenAt(path),
      failure('permission_denied', 'belongs to uid 65534', directory.path),
    );
    assert.deepEqual(readdirSync(directory.path), []);
  });

  it('needs a path that the system can take', async () => {
    using directory = temporaryDirectory();
    const long = join(directory.path, 'x'.repeat(107 - directory.path.length - 1));
    const listener = await listenAt(long);
    assert.equal(await ask(long), String(process.pid));
    await listener.close();
    await assert.rejects(listenAt(`${long}x`), failure('invalid_argument', 'too long', '107'));
    const deep = join(directory.path, 'd'.repeat(95 - directory.path.length));
    await assert.rejects(
      listenAt(join(deep, 's')),
      failure('invalid_argument', 'too long', '94 for its directory'),
    );
  });
});

describe('a TCP port', () => {
  it('tells who is in the way and what to do', async () => {
    const first = await listenTcp({ host: '127.0.0.1', port: 0, maxConnections: 1 }, () => {});
    const second = listenTcp({ host: '127.0.0.1', port: first.port ?? 0, maxConnections: 1 }, () => {});
    await assert.rejects(second, failure('conflict', `127.0.0.1:${first.port}`, 'choose another port'));
    await first.close();
  });

  it('needs an address of this machine', async () => {
    const listener = listenTcp({ host: '192.0.2.1', port: 0, maxConnections: 1 }, () => {});
    await assert.rejects(listener, failure('not_found', '192.0.2.1'));
  });

  it('asks silent peers now and then whether they are still there', async () => {
    const accepted = Promise.withResolvers<void>();
    const listener = await listenTcp({ host: '127.0.0.1', port: 0, maxConnections: 1 }, (socket) => {
      socket.on('close', () => {});
      accepted.resolve();
    });
    const client = connect(listener.port ?? 0, '127.0.0.1');
    await accepted.promise;
    const local = (listener.port ?? 0).toString(16).toUpperCase().padStart(4, '0');
    // Of an established connection of ours: 02 is the timer of keepalive.
    const ours = new RegExp(`^ *\\d+: \\w+:${local} \\w+:\\w+ 01 \\S+ (\\w\\w):`, 'm');
    assert.equal(ours.exec(readFileSync('/proc/net/tcp', 'latin1'))?.[1], '02');
    client.destroy();
    await listener.close();
  });
});
