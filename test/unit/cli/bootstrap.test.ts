import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { bootstrapSamples } from '../../../scripts/bootstrap-samples.ts';
import { parseTarget } from '../../../src/cli/bootstrap.ts';
import { MalformedError } from '../../../src/runtime/errors.ts';
import { cli, file } from './harness.ts';

const root = join(import.meta.dirname, '../../..');

describe('bootstrap', () => {
  for (const { path } of bootstrapSamples(root)) {
    it(`prints ${path} for the command in its first line`, async () => {
      const [first = '', ...lines] = readFileSync(join(root, path), 'utf8').split('\n');
      const [, config = '', flags = ''] = /^# svidecar bootstrap --config (\S+) (.*)$/.exec(first) ?? [];
      const argv = ['bootstrap', '--config', join(root, 'bootstrap', config), ...flags.split(' ')];
      const { code, stdout, stderr } = await cli(argv);
      assert.equal(code, 0, stderr);
      assert.equal(stdout, lines.join('\n'));
    });
  }

  it('exits 64 with every flag that is wrong', async (t) => {
    const config = await file(t, 'config.yaml', '');
    const { code, stderr } = await cli([
      'bootstrap',
      '--config',
      config,
      '--listener',
      'localhost',
      '--upstream',
      'web',
      '--upstream-spiffe-id',
      'spiffe://*/x',
      '--envoy-admin',
      '9901',
    ]);
    assert.equal(code, 64);
    for (const flag of ['--listener', '--upstream', '--upstream-spiffe-id', '--envoy-admin']) {
      assert.match(stderr, new RegExp(`^  ${flag}: `, 'm'));
    }
  });

  it('exits 64 for a client that would trust anybody', async (t) => {
    const config = await file(t, 'config.yaml', '');
    const argv = [
      'bootstrap',
      '--config',
      config,
      '--mode',
      'client',
      '--listener',
      '127.0.0.1:1',
      '--upstream',
      'web:2',
    ];
    const { code, stderr } = await cli(argv);
    assert.equal(code, 64);
    assert.match(stderr, /--upstream-spiffe-id: is required/);
  });
});

describe('parseTarget', () => {
  it('reads names, addresses and unix sockets', () => {
    assert.deepEqual(parseTarget('web.internal:8443'), { kind: 'tcp', host: 'web.internal', port: 8443 });
    assert.deepEqual(parseTarget('10.0.0.1:80'), { kind: 'tcp', host: '10.0.0.1', port: 80 });
    assert.deepEqual(parseTarget('[::1]:80'), { kind: 'tcp', host: '::1', port: 80 });
    assert.deepEqual(parseTarget('unix:///run/app.sock'), { kind: 'unix', path: '/run/app.sock' });
  });

  for (const text of [
    '',
    'web',
    'web:0',
    'web:65536',
    'web:80/x',
    '10.0.0.256:80',
    '::1:80',
    'unix://app',
    '-web:80',
    'a b:80',
  ]) {
    it(`refuses ${JSON.stringify(text)}`, () => assert.throws(() => parseTarget(text), MalformedError));
  }
});
