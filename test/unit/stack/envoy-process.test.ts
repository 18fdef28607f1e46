import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { UnavailableError } from '../../../src/runtime/errors.ts';
import { envoyAdmin, envoyService, envoyStats } from '../../../src/stack/envoy-process.ts';

const never = new AbortController().signal;

/** The admin interface of an Envoy, as far as a path has an answer here. */
async function serveAdmin(
  t: TestContext,
  answers: Readonly<Record<string, [number, string]>>,
): Promise<number> {
  const server = createServer((request, response) => {
    const [status, body] = answers[request.url ?? ''] ?? [404, 'invalid path'];
    response.writeHead(status).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

function readyOf(adminPort: number): Promise<boolean> {
  return envoyService({ name: 'envoy', binary: 'envoy', configFile: 'envoy.json', adminPort }).ready(never);
}

test('an Envoy is ready when it says LIVE; while it initializes its answer is a 503', async (t) => {
  assert.equal(await readyOf(await serveAdmin(t, { '/ready': [200, 'LIVE\n'] })), true);
  await assert.rejects(
    readyOf(await serveAdmin(t, { '/ready': [503, 'PRE_INITIALIZING\n'] })),
    UnavailableError,
  );
});

test('an Envoy is run without hot restart, so that many fit on one machine', () => {
  const { args, env } = envoyService({ name: 'e', binary: 'envoy', configFile: 'e.json', adminPort: 1 });
  assert.deepEqual(args.slice(0, 3), ['-c', 'e.json', '--disable-hot-restart']);
  assert.deepEqual(env, {});
});

test('stats are read as numbers; texts and histograms are left out', async (t) => {
  const body =
    'sds.default.version_text: "abc"\nsds.default.update_success: 3\na.b: 0\nhist: No recorded values\n';
  const port = await serveAdmin(t, { '/stats?filter=%5Esds': [200, body] });
  assert.deepEqual(
    [...(await envoyStats(port, /^sds/, never))],
    [
      ['sds.default.update_success', 3],
      ['a.b', 0],
    ],
  );
});

test('an admin page that is not there is an error with its path and status', async (t) => {
  const port = await serveAdmin(t, {});
  await assert.rejects(envoyAdmin(port, '/none', never), { message: 'envoy admin /none: status 404' });
});
