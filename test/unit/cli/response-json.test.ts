import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { responseToJson } from '../../../src/cli/response-json.ts';
import { encodeStruct } from '../../../src/extauthz/struct.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';

const codec = messageCodec('envoy.service.auth.v3.CheckResponse');

describe('CheckResponse as JSON', () => {
  it('leaves out what holds its default, but never the status code', () => {
    assert.deepEqual(responseToJson(codec.encode({ okResponse: {} })), {
      status: { code: 0 },
      ok_response: {},
    });
  });

  it('names fields in snake_case and shows metadata as plain JSON, empty texts included', () => {
    const bytes = codec.encode({
      status: { code: 7, message: 'policy_denied' },
      deniedResponse: {
        status: { code: 'Unauthorized' },
        headers: [{ header: { key: 'value', value: 'x' }, appendAction: 'OVERWRITE_IF_EXISTS_OR_ADD' }],
        body: 'no',
      },
      dynamicMetadata: encodeStruct({ camelCase: '', list: [1, null, { a: false }] }),
    });
    assert.deepEqual(JSON.parse(JSON.stringify(responseToJson(bytes))), {
      status: { code: 7, message: 'policy_denied' },
      denied_response: {
        status: { code: 'Unauthorized' },
        headers: [{ header: { key: 'value', value: 'x' }, append_action: 'OVERWRITE_IF_EXISTS_OR_ADD' }],
        body: 'no',
      },
      dynamic_metadata: { camelCase: '', list: [1, null, { a: false }] },
    });
  });

  it('tells append false from append absent', () => {
    const header = { key: 'a', value: 'b' };
    const bytes = codec.encode({
      okResponse: {
        headers: [{ header, append: { value: false } }, { header, append: { value: true } }, { header }],
      },
    });
    const { ok_response: ok } = responseToJson(bytes) as { ok_response: { headers: { append?: boolean }[] } };
    assert.deepEqual(
      ok.headers.map(({ append }) => append),
      [false, true, undefined],
    );
  });
});
