import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AppOptions } from '../../../src/app/app.ts';
import { AbortedError, UnavailableError } from '../../../src/runtime/errors.ts';
import { cli, file } from './harness.ts';

describe('command line', () => {
  it('explains itself, and each of its commands', async () => {
    const { code, stdout, stderr } = await cli(['--help']);
    assert.equal(code, 0);
    assert.equal(stderr, '');
    for (const command of ['run', 'validate', 'bootstrap', 'explain', 'fetch', 'status', 'demo']) {
      assert.match(stdout, new RegExp(`svidecar ${command}\\b`));
      const help = await cli([command, '--help']);
      assert.equal(help.code, 0, command);
      assert.match(help.stdout, new RegExp(`^svidecar ${command}\\b`), command);
    }
  });

  it('tells its version', async () => {
    const { code, stdout } = await cli(['--version']);
    assert.equal(code, 0);
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
  });

  const misused: readonly [string, readonly string[], RegExp][] = [
    ['no command', [], /name a command/],
    ['an unknown command', ['frobnicate'], /frobnicate/],
    ['an unknown flag', ['run', '--config', 'x', '--frobnicate'], /frobnicate/],
    ['a missing flag', ['run'], /config/],
    ['a flag given twice', ['run', '--config', 'x', '--config', 'y'], /--config is given twice/],
    ['a choice that there is not', ['fetch', 'x509', '--output', 'der'], /output/],
    ['fetch without a thing', ['fetch'], /x509, jwt or bundles/],
    ['fetch jwt without an audience', ['fetch', 'jwt'], /audience/],
    ['an argument too many', ['status', 'now'], /now/],
    ['a timeout that is no duration', ['status', '--timeout', 'soon'], /--timeout must be a duration/],
  ];
  for (const [what, argv, message] of misused) {
    it(`exits 64 for ${what}`, async () => {
      const { code, stdout, stderr } = await cli(argv);
      assert.equal(code, 64);
      assert.equal(stdout, '');
      assert.match(stderr, message);
    });
  }

  it('exits 64 with every problem of the config, or when there is no such file', async (t) => {
    const config = await file(
      t,
      'config.yaml',
      'listne: x\npolicy: {timeout: 1}\next_authz: {queries: [{match: {peer: x}}]}\n',
    );
    const { code, stderr } = await cli(['run', '--config', config]);
    assert.equal(code, 64);
    assert.match(stderr, /^ {2}listne: is not a known key; did you mean listen\?$/m);
    assert.match(stderr, /^ {2}policy\.timeout: must be text/m);
    assert.match(stderr, /^ {2}ext_authz\.queries\[0\]\.match\.peer: /m);
    const missing = await cli(['run', '--config', `${config}.no`]);
    assert.equal(missing.code, 64);
    assert.match(missing.stderr, /cannot read .*config\.yaml\.no: there is no such file/);
  });

  it('exits 64 for queries and addresses that only other rooms can judge', async (t) => {
    const config = await file(
      t,
      'config.yaml',
      'identity: {workload_api: {address: "unix://x"}}\next_authz: {queries: [{match: {peer: x, method: [get]}}]}\n',
    );
    const { code, stderr } = await cli(['validate', '--config', config]);
    assert.equal(code, 64);
    assert.match(stderr, /^ {2}ext_authz\.queries\[0\]\.match\.peer: /m);
    assert.match(stderr, /^ {2}ext_authz\.queries\[0\]\.match\.method\[0\]: /m);
    assert.match(stderr, /^ {2}identity\.workload_api\.address: /m);
  });
});

describe('run', () => {
  it('starts the program with the config, flags over environment over file', async (t) => {
    const config = await file(
      t,
      'config.yaml',
      'listen: unix:///file.sock\nlog: {level: warn}\nadmin: {listen: "127.0.0.1:1"}\n',
    );
    let started: AppOptions | undefined;
    const { code } = await cli(['run', '--config', config, '--listen', 'unix:///flag.sock'], {
      env: { SVIDECAR_LISTEN: 'unix:///env.sock', SVIDECAR_ADMIN_LISTEN: '127.0.0.1:2', SVIDECAR_PORT: '80' },
      runApp: (options) => {
        started = options;
        return Promise.resolve();
      },
    });
    assert.equal(code, 0);
    assert.deepEqual(started?.loaded.config.listen, { kind: 'unix', path: '/flag.sock' });
    assert.equal(started?.loaded.config.admin.listen.port, 2);
    assert.equal(started?.loaded.config.log.level, 'warn');
    assert.deepEqual(started?.loaded.warnings, ['SVIDECAR_PORT names no option']);
    assert.equal(started?.nodeVersion, '24.0.0');
  });

  it('exits 1 with the reason when the program fails', async (t) => {
    const config = await file(t, 'config.yaml', '');
    const { code, stderr } = await cli(['run', '--config', config], {
      runApp: () => Promise.reject(new UnavailableError('the port is taken')),
    });
    assert.equal(code, 1);
    assert.equal(stderr, 'svidecar: the port is taken\n');
  });

  it('exits 1 when a command is stopped before its end', async (t) => {
    const config = await file(t, 'config.yaml', '');
    const stop = new AbortController();
    const { code, stderr } = await cli(['run', '--config', config], {
      signal: stop.signal,
      runApp: () => {
        stop.abort();
        return Promise.reject(new AbortedError());
      },
    });
    assert.equal(code, 1);
    assert.equal(stderr, 'svidecar: stopped\n');
  });
});
