import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseCheckJson } from '../../../src/cli/check-json.ts';
import { decodeCheckRequest } from '../../../src/extauthz/check-request.ts';
import { AppError } from '../../../src/runtime/errors.ts';

const attributesOf = (value: unknown) =>
  decodeCheckRequest(parseCheckJson(JSON.stringify(value)).message).attributes;

describe('CheckRequest as JSON', () => {
  it('takes field names in snake_case and in camelCase', () => {
    const snake = attributesOf({ attributes: { context_extensions: { a: 'b' }, tls_session: { sni: 'x' } } });
    const camel = attributesOf({ attributes: { contextExtensions: { a: 'b' }, tlsSession: { sni: 'x' } } });
    assert.deepEqual(snake, camel);
    assert.equal(snake?.tlsSession?.sni, 'x');
    assert.deepEqual({ ...snake?.contextExtensions }, { a: 'b' });
  });

  it('leaves names that are data as they are', () => {
    const attributes = attributesOf({
      attributes: {
        source: { labels: { app_name: 'x' } },
        request: { http: { headers: { x_y_z: '1', 'x-a': '2' } } },
        context_extensions: { virtual_host: 'a' },
      },
    });
    assert.deepEqual({ ...attributes?.request?.http?.headers }, { x_y_z: '1', 'x-a': '2' });
    assert.deepEqual({ ...attributes?.source?.labels }, { app_name: 'x' });
    assert.deepEqual({ ...attributes?.contextExtensions }, { virtual_host: 'a' });
  });

  it('reads time, base64 and plain metadata as protobuf’s JSON has them', () => {
    const attributes = attributesOf({
      attributes: {
        request: {
          time: '2024-01-01T00:00:00.25Z',
          http: { raw_body: Buffer.from([0xff, 0]).toString('base64'), size: '7' },
        },
        metadata_context: { filter_metadata: { 'envoy.x': { snake_key: [1, 'a', true, null, { b: {} }] } } },
      },
    });
    assert.deepEqual(attributes?.request?.time, { seconds: 1_704_067_200, nanos: 250_000_000 });
    assert.deepEqual(attributes.request.http?.rawBody, Buffer.from([0xff, 0]));
    assert.equal(attributes.request.http.size, 7);
    assert.deepEqual(JSON.parse(JSON.stringify(attributes.metadataContext?.filterMetadata)), {
      'envoy.x': { snake_key: [1, 'a', true, null, { b: {} }] },
    });
  });

  it('names the keys that no field has', () => {
    const { ignored } = parseCheckJson('{"atributes": {}, "attributes": {"source": {"pincipal": "x"}}}');
    assert.deepEqual(ignored, ['atributes', 'attributes.source.pincipal']);
  });

  it('throws nothing but AppError, whatever the text', () => {
    const key = fc.constantFrom(
      'attributes',
      'source',
      'request',
      'http',
      'headers',
      'time',
      'raw_body',
      'filter_metadata',
      'metadata_context',
      'size',
      'x',
    );
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom(null, 5, true, 'x', -1.5),
        fc.array(tie('tree'), { maxLength: 3 }),
        fc.dictionary(key, tie('tree'), { maxKeys: 4 }),
      ),
    }));
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          tree.map((value) => JSON.stringify(value)),
        ),
        (text) => {
          try {
            parseCheckJson(text);
          } catch (error) {
            assert.ok(error instanceof AppError, String(error));
          }
        },
      ),
    );
    const deep = `{"attributes": ${'{"x":'.repeat(5000)}1${'}'.repeat(5000)}}`;
    assert.throws(() => parseCheckJson(deep), { name: 'LimitError' });
  });
});
