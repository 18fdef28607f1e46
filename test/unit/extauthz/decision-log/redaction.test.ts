import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { createRedactor } from '../../../../src/extauthz/decision-log/redaction.ts';
import type { InputShape } from '../../../../src/policy/query-map.ts';
import { MalformedError } from '../../../../src/runtime/errors.ts';
import { checkOnce, createTrust, getRequest, type Trust, urlEncodedPem, web } from '../harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

const secret = 'sEcReT';
const credentials = [
  'authorization',
  'proxy-authorization',
  'cookie',
  'set-cookie',
  'x-forwarded-client-cert',
];

for (const shape of ['envoy', 'agentvault', 'agentweave'] satisfies InputShape[]) {
  test(`credentials never stay in a decision of input ${shape}`, async () => {
    const headers = Object.fromEntries(credentials.map((name) => [name, secret]));
    const certificate = urlEncodedPem((await trust.own.svid(web)).chain[0]);
    const trace = await checkOnce(
      trust,
      { defaultInput: shape },
      getRequest({ headers: { ...headers, 'x-kept': 'kept' }, certificate }),
    );
    const result = {
      headers: [{ Authorization: secret }, { 'x-ok': '1' }, { Cookie: { value: [secret], append: true } }],
      response_headers_to_add: { 'Set-Cookie': [secret] },
    };
    const redacted = createRedactor([])({ input: trace.input, result });
    const text = JSON.stringify(redacted);
    assert.equal(text.includes(secret), false);
    assert.equal(text.includes('BEGIN'), false);
    assert.equal(text.includes('kept'), shape !== 'agentvault');
    assert.ok(text.includes('x-ok'));
    // What the policy saw is left as it was.
    assert.equal(JSON.stringify(trace.input).includes(secret), shape !== 'agentvault');
    assert.ok(redacted.erased.includes('/result/headers/0/Authorization'));
    assert.ok(redacted.erased.includes('/result/headers/2/Cookie'));
    if (shape === 'envoy') {
      assert.ok(redacted.erased.includes('/input/attributes/request/http/headers/authorization'));
      assert.ok(redacted.erased.includes('/input/attributes/source/certificate'));
    }
  });
}

test('credentials inside header_map go, in both forms of a value', async () => {
  const attributes = getRequest();
  const http = attributes?.request?.http;
  assert.ok(http !== undefined && http !== null);
  http.headers = {};
  http.headerMap = {
    headers: [
      { key: 'Authorization', rawValue: Buffer.from(secret) },
      { key: 'cookie', value: secret },
      { key: 'x-kept', value: 'kept' },
    ],
  };
  const trace = await checkOnce(trust, {}, attributes);
  const text = JSON.stringify(createRedactor([])({ input: trace.input, result: undefined }));
  assert.equal(text.includes(secret), false);
  assert.equal(text.includes(Buffer.from(secret).toString('base64')), false);
  assert.ok(text.includes('kept'));
});

test('header names are credentials in any case, wherever they stand', () => {
  const { input, erased } = createRedactor([])({
    input: { deep: [{ 'PROXY-Authorization': secret, other: 1 }] },
    result: undefined,
  });
  assert.deepEqual(input, { deep: [{ other: 1 }] });
  assert.deepEqual(erased, ['/input/deep/0/PROXY-Authorization']);
});

test('what needs no redaction is not copied', () => {
  const input = { a: { b: [1, 2] } };
  assert.equal(createRedactor([])({ input, result: undefined }).input, input);
});

test('a mask takes out what its pointers name, and says so', () => {
  const redact = createRedactor([
    '/input/parsed_body/password',
    '/result/headers/x-a',
    '/input/a~1b/c~0d',
    '/input/list/1',
  ]);
  const { input, result, erased } = redact({
    input: { parsed_body: { password: secret, user: 'u' }, 'a/b': { 'c~d': secret }, list: [1, 2, 3] },
    result: { headers: { 'X-A': secret, 'x-b': '1' } },
  });
  assert.deepEqual(input, { parsed_body: { user: 'u' }, 'a/b': {}, list: [1, 3] });
  assert.deepEqual(result, { headers: { 'x-b': '1' } });
  assert.deepEqual([...erased].sort(), [
    '/input/a~1b/c~0d',
    '/input/list/1',
    '/input/parsed_body/password',
    '/result/headers/X-A',
  ]);
});

test('a mask that names nothing changes nothing', () => {
  const { input, erased } = createRedactor(['/input/a/b/c', '/input/x', '/result'])({
    input: { a: 1 },
    result: undefined,
  });
  assert.deepEqual(input, { a: 1 });
  assert.equal(erased.includes('/input/x'), false);
});

test('a mask can take out the whole input', () => {
  const { input, erased } = createRedactor(['/input'])({ input: { a: secret }, result: true });
  assert.equal(input, undefined);
  assert.deepEqual(erased, ['/input']);
});

test('a mask outside input and result is a mistake', () => {
  for (const mask of ['', 'input/a', '/labels/x', '/inputs']) {
    assert.throws(() => createRedactor([mask]), MalformedError);
  }
});

test('configured headers are credentials, too, whatever their case', () => {
  const { input, result, erased } = createRedactor(
    [],
    ['X-Token'],
  )({
    input: {
      attributes: {
        request: {
          http: {
            headers: { 'x-token': secret, 'x-other': 'kept' },
            headerMap: { headers: [{ key: 'x-token', value: secret }] },
          },
        },
      },
    },
    result: { allowed: true, headers: { 'X-TOKEN': secret } },
  });
  assert.ok(!JSON.stringify([input, result]).includes(secret));
  assert.ok(JSON.stringify(input).includes('kept'));
  assert.equal(erased.length, 3);
});
