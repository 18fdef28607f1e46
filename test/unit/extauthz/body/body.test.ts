import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseBody } from '../../../../src/extauthz/body/body.ts';
import { AppError, LimitError, MalformedError } from '../../../../src/runtime/errors.ts';

const json = { 'content-type': 'application/json' };

test('a body beyond the limit is refused, whatever its encoding', () => {
  assert.deepEqual(parseBody({ body: '"éé"' }, json, 6), { parsed: 'éé', truncated: false });
  assert.throws(() => parseBody({ body: '"éé"' }, json, 5), LimitError);
  assert.throws(() => parseBody({ rawBody: Buffer.from('"éé"') }, json, 5), LimitError);
  assert.throws(
    () => parseBody({ body: 'a=b' }, { 'content-type': 'application/x-www-form-urlencoded' }, 2),
    LimitError,
  );
});

test('a body of no parsed type has no limit of its own', () => {
  assert.deepEqual(parseBody({ body: 'x'.repeat(100) }, { 'content-type': 'text/plain' }, 5), {
    parsed: null,
    truncated: false,
  });
});

test('a body that was cut off is never parsed, however large it is', () => {
  const headers = { ...json, 'x-envoy-auth-partial-body': 'true' };
  assert.deepEqual(parseBody({ body: '{' }, headers, 0), { parsed: null, truncated: true });
  assert.deepEqual(parseBody({ body: '{' }, { ...json, 'content-length': '2' }, 10), {
    parsed: null,
    truncated: true,
  });
});

test('a content-length that is no number is malformed', () => {
  for (const length of ['', 'x', '1.0', '0x1', ' 1', '9223372036854775808']) {
    assert.throws(
      () => parseBody({ body: '{}' }, { ...json, 'content-length': length }, 10),
      MalformedError,
      length,
    );
  }
  for (const length of ['2', '+2', '-1', '0', '-9223372036854775808']) {
    assert.deepEqual(parseBody({ body: '{}' }, { ...json, 'content-length': length }, 10).parsed, {}, length);
  }
});

test('whatever body and headers, there is an answer or an AppError', () => {
  const type = fc.oneof(
    fc.constantFrom(
      'application/json',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
      'multipart/form-data; boundary="',
      'application/grpc',
    ),
    fc.string(),
  );
  const text = fc.oneof(
    fc.string(),
    fc.json(),
    fc.string().map((part) => `--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n${part}\r\n--x--`),
  );
  fc.assert(
    fc.property(type, fc.option(fc.string()), text, fc.boolean(), (contentType, length, body, raw) => {
      const headers = {
        'content-type': contentType,
        ...(length === null ? {} : { 'content-length': length }),
      };
      try {
        parseBody(raw ? { rawBody: Buffer.from(body) } : { body }, headers, 1024);
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
