import assert from 'node:assert/strict';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createIdentityRules, readDenied } from '../../../src/app/identity-rules.ts';
import { createReload } from '../../../src/app/reload.ts';
import type { Config } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { sleep } from '../../../src/runtime/abort.ts';
import { AbortedError } from '../../../src/runtime/errors.ts';
import { createLatest, type Latest } from '../../../src/runtime/latest.ts';
import type { LogFields, Logger } from '../../../src/runtime/log.ts';
import { runTasks } from '../../../src/runtime/tasks.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { tempDirectory, until } from '../../support/process.ts';

type Line = Readonly<{ fields: LogFields; message: string }>;

function recordingLog(): { log: Logger; lines: readonly Line[] } {
  const lines: Line[] = [];
  const add = (fields: LogFields, message: string): void => {
    lines.push({ fields, message });
  };
  return { log: { debug: add, info: add, warn: add, error: add }, lines };
}

/** A configuration file that is followed, and how to change it as an operator does. */
async function followed(t: TestContext, text: string) {
  const path = join(await tempDirectory(t), 'svidecar.yaml');
  await writeFile(path, text);
  const read = async () => loadConfig({ text: await readFile(path, 'utf8'), path, env: {} });
  const hangups = createLatest(0);
  const { log, lines } = recordingLog();
  const outcomes: string[] = [];
  const { configs, tasks } = createReload({
    initial: await read(),
    source: { path, read, requests: (signal) => hangups.changes(signal) },
    sleep,
    log,
    meter: { configRead: (outcome) => outcomes.push(outcome) },
  });
  const stop = new AbortController();
  const running = runTasks(stop.signal, tasks);
  t.after(async () => {
    stop.abort();
    await running;
  });
  return {
    configs,
    lines,
    outcomes,
    hangUp: () => hangups.set(hangups.current() + 1),
    async write(next: string) {
      await writeFile(`${path}.new`, next);
      await rename(`${path}.new`, path);
    },
  };
}

const denying = (id: string) => `ext_authz: { peer: { denied_identities: ["${id}"] } }\n`;

function denied(configs: Latest<Config>): readonly string[] {
  return configs.current().extAuthz.peer.deniedIdentities.map(({ text }) => text);
}

test('a changed file takes effect for denied identities without a restart', async (t) => {
  const file = await followed(t, denying('spiffe://example.org/a'));
  await file.write(denying('spiffe://example.org/b'));
  await until('the new list', () =>
    Promise.resolve(denied(file.configs).includes('spiffe://example.org/b') ? true : undefined),
  );
  assert.deepEqual(file.lines.at(-1), {
    fields: { keys: ['ext_authz.peer.denied_identities'] },
    message: 'configuration changed',
  });
});

test('a file that is being rewritten lifts no denial while it is empty', async (t) => {
  const path = join(await tempDirectory(t), 'svidecar.yaml');
  await writeFile(path, denying('spiffe://example.org/a'));
  const read = async () => loadConfig({ text: await readFile(path, 'utf8'), path, env: {} });
  const waiting: (() => void)[] = [];
  const { configs, tasks } = createReload({
    initial: await read(),
    source: { path, read, requests: (signal) => createLatest(0).changes(signal) },
    sleep: (_ms, signal) =>
      new Promise((resolve, reject) => {
        waiting.push(resolve);
        signal.addEventListener('abort', () => reject(new AbortedError()), { once: true });
      }),
    log: recordingLog().log,
    meter: { configRead() {} },
  });
  const stop = new AbortController();
  const running = runTasks(stop.signal, tasks);
  t.after(async () => {
    stop.abort();
    await running;
  });
  const look = async (): Promise<void> => {
    waiting.shift()?.();
    await until('the look', () => Promise.resolve(waiting.length > 0 ? true : undefined));
  };
  await look();
  await writeFile(path, '');
  await look();
  assert.deepEqual(denied(configs), ['spiffe://example.org/a']);
  await writeFile(path, denying('spiffe://example.org/b'));
  await look();
  assert.deepEqual(denied(configs), ['spiffe://example.org/a'], 'not yet known to be whole');
  await look();
  await look();
  assert.deepEqual(denied(configs), ['spiffe://example.org/b']);
});

test('SIGHUP reads the file, and a file that is as before changes nothing', async (t) => {
  const file = await followed(t, denying('spiffe://example.org/a'));
  const before = file.configs.current();
  await until('the first look', () => Promise.resolve(file.outcomes.length > 0 ? true : undefined));
  file.hangUp();
  await until('the reload', () => Promise.resolve(file.outcomes.length > 1 ? true : undefined));
  assert.deepEqual([...new Set(file.outcomes)], ['unchanged']);
  assert.equal(file.configs.current(), before);
});

test('a broken file keeps the old configuration and says why', async (t) => {
  const file = await followed(t, denying('spiffe://example.org/a'));
  await file.write('ext_authz: { peer: { denied_identities: [nonsense] } }\n');
  await until('the refusal', () => Promise.resolve(file.outcomes.includes('refused') ? true : undefined));
  assert.deepEqual(denied(file.configs), ['spiffe://example.org/a']);
  const refusal = file.lines.find(({ message }) => message.includes('refused'));
  assert.match(JSON.stringify(refusal?.fields), /ext_authz\.peer\.denied_identities\[0\]/);
});

test('a configuration that names a missing file is refused once, and in force when the file has come', async (t) => {
  const directory = await tempDirectory(t);
  const [path, list] = [join(directory, 'svidecar.yaml'), join(directory, 'denied.txt')];
  await writeFile(path, '');
  let reads = 0;
  const read = async () => {
    reads += 1;
    const loaded = loadConfig({ text: await readFile(path, 'utf8'), path, env: {} });
    await readDenied(loaded.config);
    return loaded;
  };
  const { log, lines } = recordingLog();
  const outcomes: string[] = [];
  const { configs, tasks } = createReload({
    initial: await read(),
    source: { path, read, requests: (signal) => createLatest(0).changes(signal) },
    sleep: (_ms, signal) => sleep(2, signal),
    log,
    meter: { configRead: (outcome) => outcomes.push(outcome) },
  });
  const stop = new AbortController();
  const running = runTasks(stop.signal, tasks);
  t.after(async () => {
    stop.abort();
    await running;
  });
  await writeFile(`${path}.new`, `ext_authz: { peer: { denied_identities_file: ${JSON.stringify(list)} } }`);
  await rename(`${path}.new`, path);
  await until('the refusal', () => Promise.resolve(outcomes.includes('refused') || undefined));
  const readBefore = reads;
  await until('more tries', () => Promise.resolve(reads > readBefore + 3 || undefined));
  assert.equal(lines.filter(({ message }) => message.includes('refused')).length, 1);
  assert.equal(outcomes.filter((outcome) => outcome === 'refused').length, 1);
  await writeFile(list, 'spiffe://example.org/a\n');
  await until('the change', () =>
    Promise.resolve(configs.current().extAuthz.peer.deniedIdentitiesFile === list || undefined),
  );
  assert.equal(lines.at(-1)?.message, 'configuration changed');
  const readAfter = reads;
  for (let i = 0; i < 30; i++) await sleep(2, stop.signal);
  assert.equal(reads, readAfter, 'what is in force is not read again');
});

test('a changed key that needs a restart is named and does not take effect', async (t) => {
  const file = await followed(t, denying('spiffe://example.org/a'));
  await file.write(`policy: { timeout: 1s }\n${denying('spiffe://example.org/b')}`);
  await until('the new list', () =>
    Promise.resolve(denied(file.configs).includes('spiffe://example.org/b') ? true : undefined),
  );
  assert.equal(file.configs.current().policy.timeoutMs, 150);
  assert.deepEqual(file.lines.at(-1), {
    fields: { keys: ['policy.timeout'] },
    message: 'these changes need a restart to take effect',
  });
});

test('a line added to the denied-identities file is in force within a second, a broken line is reported', async (t) => {
  const path = join(await tempDirectory(t), 'denied.txt');
  await writeFile(path, 'spiffe://example.org/a\n');
  const { config } = loadConfig({
    text: `ext_authz: { peer: { denied_identities_file: ${JSON.stringify(path)} } }`,
    env: {},
  });
  const { log, lines } = recordingLog();
  const counts: number[] = [];
  const { rules, tasks } = await createIdentityRules({
    configs: createLatest(config),
    now: Date.now,
    sleep,
    log,
    meter: { deniedIdentities: (count) => counts.push(count) },
  });
  const isDenied = (id: string): boolean =>
    rules().denied.has(parseSpiffeId(id), parseTrustDomain('example.org'));
  assert.equal(isDenied('spiffe://example.org/a'), true, 'before any task runs');
  const stop = new AbortController();
  const running = runTasks(stop.signal, tasks);
  t.after(async () => {
    stop.abort();
    await running;
  });
  await writeFile(path, 'spiffe://example.org/a\nspiffe://example.org/b\nnonsense\n');
  const startedAt = Date.now();
  await until('the new line', () => Promise.resolve(isDenied('spiffe://example.org/b') ? true : undefined));
  assert.ok(Date.now() - startedAt < 5_000);
  assert.equal(lines.find(({ message }) => message === 'bad denied identity')?.fields['line'], 3);
  assert.equal(counts.at(-1), 2);

  const told = lines.length;
  await writeFile(path, `${'no list at all\n'.repeat(100_000)}spiffe://example.org/c\n`);
  await until('the line at the end', () => isDenied('spiffe://example.org/c') || undefined);
  assert.ok(lines.length <= told + 22);
  assert.ok(
    lines.some(({ message, fields }) => message === 'bad denied identities' && fields['lines'] === 100_000),
  );
});

test('a denied-identities file that is missing at start is an error of the configuration', async () => {
  const { config } = loadConfig({
    text: 'ext_authz: { peer: { denied_identities_file: /nowhere/denied.txt } }',
    env: {},
  });
  await assert.rejects(
    createIdentityRules({
      configs: createLatest(config),
      now: Date.now,
      sleep,
      log: recordingLog().log,
      meter: { deniedIdentities() {} },
    }),
    /^ConfigError: ext_authz\.peer\.denied_identities_file: cannot be read, so nobody in it would be denied/,
  );
});
