import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';

const discoveryRequest = messageCodec('envoy.service.discovery.v3.DiscoveryRequest');
const checkRequest = messageCodec('envoy.service.auth.v3.CheckRequest');
const checkResponse = messageCodec('envoy.service.auth.v3.CheckResponse');
const secret = messageCodec('envoy.extensions.transport_sockets.tls.v3.Secret');

describe('a message codec', () => {
  it('gives back what was encoded, with defaults for the rest', () => {
    const decoded = discoveryRequest.decode(
      discoveryRequest.encode({ node: { id: 'n', userAgentVersion: '1.40' }, resourceNames: ['default'] }),
    );
    assert.equal(decoded.node?.userAgentVersionType, 'userAgentVersion');
    assert.deepEqual(decoded.resourceNames, ['default']);
    assert.equal(decoded.versionInfo, '');
    assert.equal(decoded.errorDetail, null);
  });

  it('skips the fields it does not know, such as the extensions of a node', () => {
    // node { extensions { name: "x" }, id: "n" }
    const bytes = Buffer.from('12084a030a01780a016e', 'hex');
    assert.equal(discoveryRequest.decode(bytes).node?.id, 'n');
  });

  it('keeps 64-bit numbers exact, as text', () => {
    const size = '9007199254740993';
    const bytes = checkRequest.encode({ attributes: { request: { http: { size } } } });
    assert.equal(checkRequest.decode(bytes).attributes?.request?.http?.size, size);
  });

  it('has keys and certificates as Buffers', () => {
    const inlineBytes = Buffer.from([0, 255, 1]);
    const decoded = secret.decode(
      secret.encode({ name: 'd', tlsCertificate: { privateKey: { inlineBytes } } }),
    );
    assert.equal(decoded.type, 'tlsCertificate');
    const read = decoded.tlsCertificate?.privateKey?.inlineBytes;
    assert.ok(Buffer.isBuffer(read));
    assert.deepEqual(read, inlineBytes);
  });

  it('packs an Any', () => {
    const resource = messageCodec('envoy.service.discovery.v3.Resource');
    const value = secret.encode({ name: 'x' });
    const decoded = resource.decode(resource.encode({ name: 'x', resource: { type_url: 't', value } }));
    assert.equal(secret.decode(decoded.resource?.value ?? Buffer.alloc(0)).name, 'x');
  });

  it('reads a plain Uint8Array, and an empty message', () => {
    assert.deepEqual(checkRequest.decode(new Uint8Array()), { attributes: null });
  });

  it('does not let a map key reach a prototype', () => {
    const entry = Buffer.concat([
      prefixed(0x0a, Buffer.from('__proto__')),
      prefixed(0x12, prefixed(0x1a, Buffer.from('x'))),
    ]);
    const decoded = checkResponse.decode(prefixed(0x22, prefixed(0x0a, entry)));
    assert.ok(decoded.dynamicMetadata?.fields);
    assert.equal(Object.getPrototypeOf(decoded.dynamicMetadata.fields), Object.prototype);
    assert.equal(({} as Record<string, unknown>)['stringValue'], undefined);
  });

  it('reads a struct of some depth and refuses one of any depth', () => {
    const nested = (depth: number): Buffer => {
      let value = prefixed(0x1a, Buffer.from('x'));
      for (let level = 0; level < depth; level++) value = prefixed(0x2a, field(value));
      return prefixed(0x22, field(value));
    };
    const { dynamicMetadata } = checkResponse.decode(nested(20));
    assert.equal(JSON.stringify(dynamicMetadata).split('structValue":').length, 21);
    assert.throws(() => checkResponse.decode(nested(2000)), MalformedError);
  });

  it('throws MalformedError for bytes that are no message, and nothing else for any bytes', () => {
    assert.throws(() => checkRequest.decode(Buffer.from('0aff', 'hex')), MalformedError);
    for (const codec of [checkRequest, discoveryRequest]) {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
          try {
            codec.decode(bytes);
          } catch (error) {
            assert.ok(error instanceof AppError);
          }
        }),
        { numRuns: 1000 },
      );
    }
  });

  it('throws MalformedError for a value that does not fit', () => {
    const status = 'nothing' as never;
    assert.throws(() => checkResponse.encode({ status }), MalformedError);
  });
});

/** The map entry of a struct whose key is `k`. */
function field(value: Buffer): Buffer {
  return prefixed(0x0a, Buffer.concat([prefixed(0x0a, Buffer.from('k')), prefixed(0x12, value)]));
}

function prefixed(tag: number, body: Buffer): Buffer {
  const length: number[] = [];
  let rest = body.length;
  while (rest > 127) {
    length.push((rest & 127) | 128);
    rest >>>= 7;
  }
  return Buffer.concat([Buffer.from([tag, ...length, rest]), body]);
}
