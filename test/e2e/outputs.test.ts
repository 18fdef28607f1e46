import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { startProcess, tempDirectory, until } from '../support/process.ts';
import { startSidecar } from '../support/sidecar.ts';
import { devIdentity, server } from './world.ts';

test('a program that cannot speak SDS gets whole sets of files and a signal after each', async (t) => {
  const directory = await tempDirectory(t);
  const files = join(directory, 'svid');
  const pidFile = join(directory, 'app.pid');
  const app = await startProcess(t, {
    name: 'app',
    command: 'sh',
    args: [
      '-c',
      `trap 'echo reloaded' HUP; umask 022; echo $$ > "$0"; echo started; while :; do sleep 0.1; done`,
      pidFile,
    ],
  });
  await app.waitForLine(/started/);
  const sidecar = await startSidecar(t, {
    config: {
      identity: devIdentity({ svid_ttl: '6s', jwt_svid_ttl: '6s' }),
      ext_authz: { enabled: false },
      sds: { enabled: false },
      outputs: [
        {
          directory: files,
          jwt: [{ audience: 'billing', file: 'jwt.token' }],
          signal: { pid_file: pidFile, name: 'SIGHUP' },
        },
      ],
    },
  });

  const serials = new Set<string>();
  let mark = 0;
  await until(
    'three X.509-SVIDs, each after a signal',
    async () => {
      await app.waitForLine(/reloaded/, { since: mark });
      mark = app.lineCount();
      const set = join(files, await readlink(join(files, '..data')));
      const certificate = new X509Certificate(await readFile(join(set, 'svid.pem')));
      assert.ok(certificate.checkPrivateKey(createPrivateKey(await readFile(join(set, 'svid.key')))));
      const bundle = new X509Certificate(await readFile(join(set, 'bundle.pem')));
      assert.ok(certificate.verify(bundle.publicKey));
      assert.equal(certificate.subjectAltName, `URI:${server}`);
      const claims = (await readFile(join(set, 'jwt.token'), 'latin1')).split('.')[1] ?? '';
      const { sub, aud, exp } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as {
        sub: string;
        aud: readonly string[];
        exp: number;
      };
      assert.deepEqual([sub, aud], [server, ['billing']]);
      assert.ok(exp * 1000 > Date.now());
      serials.add(certificate.serialNumber);
      return serials.size >= 3 ? true : undefined;
    },
    { timeoutMs: 30_000 },
  );

  const modes = await Promise.all(
    ['svid.pem', 'bundle.pem', 'svid.key', 'jwt.token'].map(
      async (name) => (await stat(join(files, name))).mode & 0o777,
    ),
  );
  assert.deepEqual(modes, [0o644, 0o644, 0o600, 0o600]);
  const { outputs } = JSON.parse((await sidecar.admin('/status')).body) as {
    outputs: readonly { directory: string; written_at: string; problem?: string }[];
  };
  assert.equal(outputs[0]?.directory, files);
  assert.equal(outputs[0]?.problem, undefined);
  assert.ok((await sidecar.metric('svidecar_output_sets_total{output="0",outcome="written"}')) >= 3);

  await sidecar.process().stop();
  assert.ok((await stat(join(files, 'svid.key'))).size > 0, 'files outlive the sidecar');
});
