import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { UnavailableError } from '../../../src/runtime/errors.ts';
import { opaService } from '../../../src/stack/opa-process.ts';
import { sidecarService } from '../../../src/stack/sidecar-process.ts';

const never = new AbortController().signal;

async function serve(t: TestContext, path: string, status: number): Promise<number> {
  const server = createServer((request, response) => {
    response.writeHead(request.url === path ? status : 404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

test('a sidecar is this program, told to run a config file, with nothing of our environment', () => {
  const program = ['/bin/node', '--flag', 'main.js'] as const;
  const service = sidecarService({ name: 's', program, configFile: 'c.yaml', adminPort: 1 });
  assert.equal(service.command, '/bin/node');
  assert.deepEqual(service.args, ['--flag', 'main.js', 'run', '--config', 'c.yaml']);
  assert.deepEqual(service.env, {});
});

for (const [status, ready] of [
  [200, true],
  [503, false],
] as const) {
  test(`a sidecar whose admin server answers /ready with ${status} is ${ready ? '' : 'not '}ready`, async (t) => {
    const adminPort = await serve(t, '/ready', status);
    const service = sidecarService({ name: 's', program: ['node'], configFile: 'c.yaml', adminPort });
    assert.equal(await service.ready(never), ready);
  });
}

test('an OPA is ready when it is healthy, and not while nobody answers', async (t) => {
  const port = await serve(t, '/health', 200);
  const options = { name: 'opa', binary: 'opa', files: ['a.rego'] };
  assert.equal(await opaService({ ...options, port }).ready(never), true);
  await assert.rejects(opaService({ ...options, port: 1 }).ready(never), UnavailableError);
});
