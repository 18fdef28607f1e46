import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { MessageTypes } from '../../../src/grpc/messages.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { AppError, LimitError, MalformedError } from '../../../src/runtime/errors.ts';
import { decodeDeltaRequest, decodeSotwRequest } from '../../../src/sds/requests.ts';
import { secretTypeUrl } from '../../../src/sds/secret.ts';

type SotwMessage = MessageTypes['envoy.service.discovery.v3.DiscoveryRequest']['in'];
type DeltaMessage = MessageTypes['envoy.service.discovery.v3.DeltaDiscoveryRequest']['in'];

const sotwCodec = messageCodec('envoy.service.discovery.v3.DiscoveryRequest');
const deltaCodec = messageCodec('envoy.service.discovery.v3.DeltaDiscoveryRequest');
const decodeSotw = (message: SotwMessage) => decodeSotwRequest(sotwCodec.encode(message));
const decodeDelta = (message: DeltaMessage) => decodeDeltaRequest(deltaCodec.encode(message));

describe('a request', () => {
  test('is read with its names as they were sent', () => {
    assert.deepEqual(
      decodeSotw({ resourceNames: ['b', '', 'a', 'b'], responseNonce: 'n', typeUrl: secretTypeUrl }),
      {
        node: undefined,
        names: ['b', '', 'a', 'b'],
        nonce: 'n',
        refusal: undefined,
      },
    );
  });

  test('of the delta protocol is read with what it subscribes, unsubscribes and holds', () => {
    const request = decodeDelta({
      resourceNamesSubscribe: ['a'],
      resourceNamesUnsubscribe: ['b'],
      initialResourceVersions: { a: '1', ['__proto__']: '2' },
      responseNonce: 'n',
      errorDetail: { code: 13, message: 'no' },
    });
    assert.deepEqual(
      { ...request, initialVersions: request.initialVersions.get('a') },
      {
        node: undefined,
        subscribe: ['a'],
        unsubscribe: ['b'],
        initialVersions: '1',
        nonce: 'n',
        refusal: 'no',
      },
    );
  });

  test('may leave out the type, which the service implies', () => {
    assert.deepEqual(decodeSotw({ typeUrl: '' }).names, []);
    assert.deepEqual(decodeDelta({ typeUrl: '' }).subscribe, []);
  });

  test('for another type is an invalid argument', () => {
    const typeUrl = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';
    const invalid = { code: 'invalid_argument' };
    assert.throws(() => decodeSotw({ typeUrl }), invalid);
    assert.throws(() => decodeDelta({ typeUrl }), invalid);
  });

  test('refuses without a message, too', () => {
    assert.equal(decodeSotw({ errorDetail: { code: 13 } }).refusal, 'no message given');
  });

  test('has its refusal cut and freed of line breaks before it can reach a log', () => {
    const refusal =
      decodeSotw({ errorDetail: { message: `one\r\ntwo\u001b[31m${'x'.repeat(5000)}` } }).refusal ?? '';
    assert.ok(refusal.startsWith('one two [31mxxx'), refusal.slice(0, 20));
    assert.ok(refusal.length <= 512);
  });

  test('with too many names, or too long ones, is refused', () => {
    const many = Array.from({ length: 1001 }, (_, i) => `n${i}`);
    const long = 'x'.repeat(2049);
    assert.throws(() => decodeSotw({ resourceNames: many }), LimitError);
    assert.throws(() => decodeSotw({ resourceNames: [long] }), LimitError);
    assert.throws(() => decodeDelta({ resourceNamesSubscribe: many }), LimitError);
    assert.throws(() => decodeDelta({ resourceNamesUnsubscribe: many }), LimitError);
    assert.throws(() => decodeDelta({ resourceNamesUnsubscribe: [long] }), LimitError);
    assert.throws(
      () => decodeDelta({ initialResourceVersions: Object.fromEntries(many.map((name) => [name, '1'])) }),
      LimitError,
    );
    assert.equal(decodeSotw({ resourceNames: many.slice(0, 1000) }).names.length, 1000);
  });

  test('of any bytes is a request or an AppError', () => {
    for (const decode of [decodeSotwRequest, decodeDeltaRequest]) {
      let good = 0;
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
          try {
            decode(Buffer.from(bytes));
            good += 1;
          } catch (error) {
            assert.ok(error instanceof AppError, String(error));
          }
        }),
        { numRuns: 2000, examples: [[Uint8Array.of()], [Uint8Array.of(0xff)]] },
      );
      assert.ok(good > 0);
    }
    assert.throws(() => decodeSotwRequest(Buffer.of(0xff)), MalformedError);
  });

  test('of any names and nonce survives the wire', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 50 });
    fc.assert(
      fc.property(fc.array(text, { maxLength: 10 }), text, (resourceNames, responseNonce) => {
        const { names, nonce } = decodeSotw({ resourceNames, responseNonce });
        assert.deepEqual({ names, nonce }, { names: resourceNames, nonce: responseNonce });
      }),
    );
  });
});
