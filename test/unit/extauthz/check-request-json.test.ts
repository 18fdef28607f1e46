import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import fc from 'fast-check';
import { decodeCheckRequest } from '../../../src/extauthz/check-request.ts';
import { parseCheckRequestJson } from '../../../src/extauthz/check-request-json.ts';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import { checkerWith, checkOnce, createTrust, getRequest, neverAborted, type Trust, web } from './harness.ts';

let trust: Trust;
before(async () => {
  trust = await createTrust();
});

function read(value: unknown) {
  return decodeCheckRequest(parseCheckRequestJson(JSON.stringify(value)));
}

test('names in camel case and in snake case mean the same', () => {
  const camel = {
    attributes: {
      source: { address: { socketAddress: { address: 'a', portValue: 1 } }, principal: web },
      request: {
        time: '2026-06-01T12:00:00.5Z',
        http: { method: 'GET', rawBody: 'AQ==', headers: { x_y: '1' } },
      },
      contextExtensions: { some_key: 'v' },
    },
  };
  const snake = {
    attributes: {
      source: { address: { socket_address: { address: 'a', port_value: 1 } }, principal: web },
      request: {
        time: '2026-06-01T14:00:00.5+02:00',
        http: { method: 'GET', raw_body: 'AQ==', headers: { x_y: '1' } },
      },
      context_extensions: { some_key: 'v' },
    },
  };
  const { attributes } = read(camel);
  assert.deepEqual(attributes, read(snake).attributes);
  assert.deepEqual({ ...attributes?.request?.time }, { seconds: 1_780_315_200, nanos: 500_000_000 });
  assert.deepEqual({ ...attributes?.contextExtensions }, { some_key: 'v' });
  assert.deepEqual(attributes?.request?.http?.rawBody, Buffer.from([1]));
});

test('the input of a decision log record is read as the CheckRequest that it was made from', async () => {
  const attributes = {
    ...getRequest({ headers: { 'x-a': '1' }, contextExtensions: { action: 'read' } }),
    metadataContext: {
      filterMetadata: {
        f: { fields: { l: { listValue: { values: [{ nullValue: 'NULL_VALUE' as const }] } } } },
      },
      typedFilterMetadata: { t: { type_url: 'x/y', value: Buffer.from([1, 2]) } },
    },
  };
  const first = await checkOnce(trust, {}, attributes);
  const again = await checkerWith(trust, {}).check(
    parseCheckRequestJson(JSON.stringify(first.input)),
    neverAborted,
  );
  assert.equal(again.outcome.kind, 'allowed');
  assert.deepEqual(again.input, first.input);
});

test('what is wrong is named by its place', () => {
  const cases: [unknown, RegExp][] = [
    [7, /CheckRequest is not an object/],
    [{ attribute: {} }, /no member attribute/],
    [{ attributes: { source: { principle: web } } }, /no member attributes\.source\.principle/],
    [{ attributes: { request: { http: [] } } }, /attributes\.request\.http is not an object/],
    [
      { attributes: { request: { http: { rawBody: '*' } } } },
      /attributes\.request\.http\.rawBody is not base64/,
    ],
    [{ attributes: { request: { time: 'yesterday' } } }, /attributes\.request\.time is not an RFC 3339 time/],
    [
      { attributes: { request: { http: { headerMap: { headers: {} } } } } },
      /headerMap\.headers is not a list/,
    ],
  ];
  for (const [value, message] of cases) {
    assert.throws(
      () => read(value),
      (error) => error instanceof MalformedError && message.test(error.message),
    );
  }
  assert.throws(() => parseCheckRequestJson('{'), MalformedError);
});

test('any JSON is read or refused with an AppError', () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 5 }), (text) => {
      for (const json of [text, `{"attributes":${text}}`, `{"attributes":{"request":{"http":${text}}}}`]) {
        try {
          decodeCheckRequest(parseCheckRequestJson(json));
        } catch (error) {
          assert.ok(error instanceof AppError);
        }
      }
    }),
  );
});
