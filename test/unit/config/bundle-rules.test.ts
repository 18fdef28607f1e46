import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeConfig, loadConfig } from '../../../src/config/load.ts';
import { ConfigError } from '../../../src/runtime/errors.ts';

const load = (bundle: unknown) =>
  loadConfig({
    text: JSON.stringify({ policy: { engine: 'wasm', bundle } }),
    path: '/etc/svidecar/config.yaml',
    env: {},
  });

function problemsOf(bundle: unknown): readonly string[] {
  try {
    load(bundle);
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
}

const url = 'https://bundles.example/authz.tar.gz?alt=media';
const plain = 'http://bundles.example/authz.tar.gz';

describe('a bundle of an HTTP service in the config', () => {
  it('is asked for every 10 to 30 s by default', () => {
    assert.deepEqual(load({ url }).config.policy.bundles, [
      {
        name: 'policy',
        at: 'policy.bundle',
        from: {
          kind: 'service',
          url,
          polling: { minMs: 10_000, maxMs: 30_000, longPollMs: undefined },
          bearerFile: undefined,
          spiffeIds: [],
          persistDir: undefined,
        },
        verificationKey: undefined,
      },
    ]);
  });

  it('takes every key, files count from the folder of the config, and what is printed means the same', () => {
    const loaded = load({
      url,
      polling: { min: '5s', max: '5s', long_poll: '1m' },
      auth: { bearer_file: 'token', spiffe_ids: ['spiffe://a.example/bundles'] },
      verification_key: 'pub.pem',
      persist_dir: 'kept',
    });
    const [bundle] = loaded.config.policy.bundles;
    assert.deepEqual(bundle?.from, {
      kind: 'service',
      url,
      polling: { minMs: 5_000, maxMs: 5_000, longPollMs: 60_000 },
      bearerFile: '/etc/svidecar/token',
      spiffeIds: ['spiffe://a.example/bundles'],
      persistDir: '/etc/svidecar/kept',
    });
    const again = loadConfig({
      text: describeConfig(loaded.options),
      path: '/etc/svidecar/config.yaml',
      env: {},
    });
    assert.deepEqual(again.config.policy, loaded.config.policy);
  });

  it('needs no https on loopback, nor for a bundle that is signed', () => {
    const bearer = { bearer_file: 'token' };
    for (const host of ['127.0.0.1:8888', '127.1.2.3', '[::1]:8888']) {
      assert.deepEqual(problemsOf({ url: `http://${host}/b.tar.gz`, auth: bearer }), [], host);
    }
    assert.deepEqual(problemsOf({ url: plain, verification_key: 'pub.pem' }), []);
  });

  const refused: readonly (readonly [string, unknown, readonly RegExp[]])[] = [
    ['nothing to get it from', {}, [/^policy\.bundle: needs a file or a url$/]],
    ['both', { url, file: 'b' }, [/^policy\.bundle\.url: is there beside policy\.bundle\.file/]],
    [
      'a file with what is for services',
      { file: 'b', polling: {}, auth: {}, persist_dir: 'd' },
      [/\.polling: is only for a url/, /\.auth: is only/, /\.persist_dir: is only/],
    ],
    ['http that anybody can change', { url: plain }, [/^policy\.bundle\.url: .*could change the policy$/]],
    ['localhost, a name', { url: 'http://localhost/b' }, [/could change the policy/]],
    [
      'a token over http, although the bundle is signed',
      { url: plain, verification_key: 'k', auth: { bearer_file: 't' } },
      [/^policy\.bundle\.url: .*could read the token of policy\.bundle\.auth\.bearer_file$/],
    ],
    [
      'SPIFFE IDs over http',
      { url: 'http://127.0.0.1/b', auth: { spiffe_ids: ['spiffe://a.example/b'] } },
      [/^policy\.bundle\.url: must be https, because policy\.bundle\.auth\.spiffe_ids/],
    ],
    [
      'a shortest wait above the longest, also the default one',
      { url, polling: { min: '1m' } },
      [/^policy\.bundle\.polling\.min: must not be more than policy\.bundle\.polling\.max$/],
    ],
    ['a user name', { url: 'https://u:p@a.example/b' }, [/must not contain a user name/]],
    ['a fragment', { url: 'https://a.example/b#c' }, [/must not contain a fragment/]],
    ['another scheme', { url: 'ftp://a.example/b' }, [/must be a URL such as https/]],
    ['a socket', { url: 'unix:///run/b.sock' }, [/must be a URL such as https/]],
    ['a long URL', { url: `https://a.example/${'b'.repeat(2_048)}` }, [/must be a URL such as/]],
    ['a long poll beyond an hour', { url, polling: { long_poll: '61m' } }, [/must be 1s to 1h/]],
    ['names that lead elsewhere', { url, name: '..' }, [/^policy\.bundle\.name: must be 1 to 64/]],
    ['one of a list', [{ name: 'a', url: plain }], [/^policy\.bundle\[0\]\.url: must be https/]],
  ];
  for (const [what, bundle, messages] of refused) {
    it(`refuses ${what}`, () => {
      const problems = problemsOf(bundle);
      assert.equal(problems.length, messages.length, problems.join('\n'));
      for (const [index, message] of messages.entries()) assert.match(problems[index] ?? '', message);
    });
  }
});
