import assert from 'node:assert/strict';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDirectory, until } from '../support/process.ts';
import { type Caller, http, startCaller } from './caller.ts';
import { allowed } from './world.ts';

const ok = { http: 'OK', reason: undefined };
const refused = { http: 'Forbidden', reason: 'identity_denied' };

function judged(caller: Caller, expected: typeof ok | typeof refused): Promise<true> {
  return until(`a Check to end ${expected.http}`, async () => {
    const answer = await caller.check({ source: { principal: allowed }, request: { http } });
    return answer.http === expected.http && answer.reason === expected.reason ? true : undefined;
  });
}

test('an identity written into the denied file is refused within a second, and passes again after it is taken out', async (t) => {
  const file = join(await tempDirectory(t), 'denied.txt');
  await writeFile(file, '');
  const caller = await startCaller(t, { peer: { denied_identities_file: file } });
  await judged(caller, ok);
  const startedAt = Date.now();
  await writeFile(file, `# banned\n${allowed}\n`);
  await judged(caller, refused);
  const tookMs = Date.now() - startedAt;
  assert.ok(tookMs < 1000, `${tookMs} ms`);
  await writeFile(file, '');
  await judged(caller, ok);
});

test('SIGHUP takes denied identities from the config file; a broken file keeps the old ones and says why', async (t) => {
  const caller = await startCaller(t);
  const { sidecar } = caller;
  const text = await readFile(sidecar.configFile, 'utf8');
  const config = JSON.parse(text) as { ext_authz: object };
  const write = async (content: string): Promise<void> => {
    await writeFile(`${sidecar.configFile}.new`, content);
    await rename(`${sidecar.configFile}.new`, sidecar.configFile);
    sidecar.process().kill('SIGHUP');
  };
  await judged(caller, ok);
  await write(
    JSON.stringify({ ...config, ext_authz: { ...config.ext_authz, peer: { denied_identities: [allowed] } } }),
  );
  await judged(caller, refused);
  await write('ext_authz: { peer: { denied_identities: [nonsense] } }');
  await sidecar.process().waitForLine(/new configuration refused.*|denied_identities\[0\]/);
  await judged(caller, refused);
  await write(text);
  await judged(caller, ok);
});
