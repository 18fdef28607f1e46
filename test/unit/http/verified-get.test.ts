import assert from 'node:assert/strict';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createHttpClient } from '../../../src/http/client.ts';
import { ServerIdentityError } from '../../../src/http/server-trust.ts';
import {
  getRedirected,
  type RefusedAnswer,
  RefusedAnswerError,
  verifiedGet,
} from '../../../src/http/verified-get.ts';
import { LimitError, TimeoutError } from '../../../src/runtime/errors.ts';
import { parseSpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import { createTestAuthority, testNow, trustIn } from '../../support/ca.ts';
import { startHttpsServer } from '../../support/https-server.ts';

const id = parseSpiffeId('spiffe://partner.example/bundles');
const root = await createTestAuthority('partner.example');
const svid = await root.svid(id);
const forever = new AbortController().signal;

async function serve(t: TestContext, handle: RequestListener): Promise<string> {
  return (await startHttpsServer(t, svid, handle)).url;
}

const trust = { kind: 'spiffe', spiffeIds: [id], bundles: () => trustIn(root), now: () => testNow } as const;

async function get(url: string, timeoutMs = 5_000): Promise<string> {
  return (await verifiedGet({ url, trust, timeoutMs, maxBytes: 1_000, maxRedirects: 3 }, forever)).toString();
}

function refused(reason: RefusedAnswer): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof RefusedAnswerError, String(error));
    assert.equal(error.reason, reason);
    return true;
  };
}

test('three redirects are followed, relative ones too, a fourth is not', async (t) => {
  const paths: (string | undefined)[] = [];
  const url = await serve(t, (request, response) => {
    paths.push(request.url);
    const [, left] = /^\/(\d)$/.exec(request.url ?? '') ?? [];
    if (left === '0') response.end('there');
    else response.writeHead(302, { location: `/${Number(left) - 1}` }).end();
  });
  assert.equal(await get(`${url}/3`), 'there');
  assert.deepEqual(paths, ['/3', '/2', '/1', '/0']);
  await assert.rejects(get(`${url}/4`), refused('too_many_redirects'));
});

test('a redirect loop ends', async (t) => {
  const url = await serve(t, (_, response) => response.writeHead(301, { location: '/' }).end());
  await assert.rejects(get(url), refused('too_many_redirects'));
});

test('a redirect to plain http, with a user name, or to nowhere is refused and not followed', async (t) => {
  let asked = 0;
  const plain = createServer((_, response) => {
    asked += 1;
    response.end('x');
  });
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
  t.after(() => plain.close());
  const { port } = plain.address() as AddressInfo;
  for (const location of [`http://127.0.0.1:${port}/`, 'https://a:b@127.0.0.1/', 'https://', undefined]) {
    const headers = location === undefined ? {} : { location };
    const url = await serve(t, (_, response) => response.writeHead(307, headers).end());
    await assert.rejects(get(url), refused('bad_redirect'), location);
  }
  assert.equal(asked, 0);
});

test('the server that a redirect leads to has to prove the same identity', async (t) => {
  const other = await startHttpsServer(t, await root.svid('spiffe://partner.example/other'), (_, response) =>
    response.end('x'),
  );
  const url = await serve(t, (_, response) => response.writeHead(302, { location: other.url }).end());
  await assert.rejects(get(url), ServerIdentityError);
  assert.equal(other.requests(), 0);
});

for (const status of [201, 204, 304, 404, 500]) {
  test(`status ${status} is refused`, async (t) => {
    const url = await serve(t, (_, response) => response.writeHead(status).end());
    await assert.rejects(get(url), refused('bad_status'));
  });
}

test('a body over the limit is refused, also when it only unpacks to that', async (t) => {
  const url = await serve(t, (request, response) => {
    if (request.url === '/bomb') {
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(10_000_000)));
    } else response.end('x'.repeat(request.url === '/long' ? 1_001 : 1_000));
  });
  for (const path of ['/long', '/bomb']) await assert.rejects(get(url + path), LimitError, path);
  assert.equal((await get(url)).length, 1_000);
});

test('the time is bounded over all redirects together', async (t) => {
  const url = await serve(t, (request, response) => {
    if (request.url === '/') response.writeHead(302, { location: '/slow' }).end();
    else response.write('drip');
  });
  await assert.rejects(get(url, 200), TimeoutError);
});

test('an answer is given with its status and headers, whatever they are', async (t) => {
  const url = await serve(t, (request, response) =>
    response.writeHead(304, { etag: String(request.headers['if-none-match']) }).end(),
  );
  const headers = { 'if-none-match': '"v1"' };
  const client = createHttpClient({ maxSockets: 1, trust });
  t.after(() => client.close());
  const { status, headers: answered } = await getRedirected(
    client,
    { url, headers, timeoutMs: 5_000, maxBytes: 10, maxRedirects: 0 },
    forever,
  );
  assert.deepEqual([status, answered['etag']], [304, '"v1"']);
});

test('a redirect to another server takes no authorization along, one to the same server does', async (t) => {
  const seen: unknown[] = [];
  const other = await serve(t, (request, response) => {
    seen.push([request.headers.authorization, request.headers['x-other']]);
    response.end('x');
  });
  const url = await serve(t, (request, response) => {
    seen.push(request.headers.authorization);
    response.writeHead(302, { location: request.url === '/' ? '/next' : other }).end();
  });
  const headers = { authorization: 'Bearer t0ken', 'x-other': 'y' };
  await verifiedGet({ url, trust, headers, timeoutMs: 5_000, maxBytes: 10, maxRedirects: 2 }, forever);
  assert.deepEqual(seen, ['Bearer t0ken', 'Bearer t0ken', [undefined, 'y']]);
});

test('plain http is asked as it is, and may redirect to https only', async (t) => {
  const secure = await serve(t, (_, response) => response.end('proved'));
  const plain = createServer((request, response) => {
    if (request.url === '/') response.end('plain');
    else response.writeHead(302, { location: request.url === '/up' ? secure : '/' }).end();
  });
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
  t.after(() => plain.close());
  const url = `http://127.0.0.1:${(plain.address() as AddressInfo).port}`;
  assert.equal(await get(url), 'plain');
  assert.equal(await get(`${url}/up`), 'proved');
  await assert.rejects(get(`${url}/down`), refused('bad_redirect'));
});
