import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { parseDescriptorSet } from '../../../src/extauthz/body/proto-descriptor.ts';
import { createJwtPeerSource } from '../../../src/extauthz/peer/jwt-peer.ts';
import { createMtlsPeerSource } from '../../../src/extauthz/peer/mtls-peer.ts';
import { createXfccPeerSource } from '../../../src/extauthz/peer/xfcc-peer.ts';
import { createExtAuthzService } from '../../../src/extauthz/service.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { createJwtSigner } from '../../../src/spiffe/authority.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { testNow } from '../../support/ca.ts';
import { compileProto } from '../../support/descriptors.ts';
import { grpcFrame } from '../../support/raw-grpc.ts';
import {
  api,
  checkerWith,
  createTrust,
  functionEngine,
  getRequest,
  neverAborted,
  type Trust,
  urlEncodedPem,
  web,
} from './harness.ts';

const requests = messageCodec('envoy.service.auth.v3.CheckRequest');
const responses = messageCodec('envoy.service.auth.v3.CheckResponse');
const proto = compileProto(`
syntax = "proto3";
package shop;
message Order { string id = 1; repeated int64 n = 2; map<string, Order> more = 3; }
service Shop { rpc Buy (Order) returns (Order); }
`);

type Seeds = Readonly<{ trust: Trust; bytes: readonly Buffer[] }>;
let seeds: Seeds;

/** Checks of `api`, each with another part that somebody has to read. */
before(async () => {
  const base = await createTrust();
  const signer = await createJwtSigner();
  const domain = parseTrustDomain('example.org');
  const jwtBundles = new Map([[domain, { trustDomain: domain, authorities: [signer.authority] }]]);
  const { token } = await signer.sign({
    spiffeId: parseSpiffeId(api),
    audiences: ['api'],
    ttlMs: 60_000,
    now: testNow,
  });
  const certificate = urlEncodedPem((await base.own.svid(api)).chain[0]);
  const own = { principal: api, certificate, path: '/open' };
  const order = proto.encode('shop.Order', { id: '7', n: [1, 2], more: { a: { id: 'b' } } });
  const body = (type: string, text: string) => ({ ...own, headers: { 'content-type': type }, body: text });
  const grpc = (bytes: Buffer, encoding: Record<string, string> = {}) => {
    const attributes = getRequest({ ...own, path: '/shop.Shop/Buy' });
    const headers = { 'content-type': 'application/grpc', ...encoding };
    return { ...attributes, request: { http: { path: '/shop.Shop/Buy', headers, rawBody: bytes } } };
  };
  const raw = { key: 'content-type', rawValue: Buffer.from('application/json') };
  const all = [
    getRequest(own),
    getRequest(body('application/json', '{"n":7,"a":[1.5e3,"\\u00e9",null,{"b":12345678901234567890}]}')),
    getRequest(body('application/x-www-form-urlencoded', 'n=7&a=%c3%a9&b=+')),
    getRequest(
      body(
        'multipart/form-data; boundary="x"',
        '--x\r\nContent-Disposition: form-data; name="n"\r\nContent-Type: application/json\r\n\r\n7\r\n--x--',
      ),
    ),
    grpc(grpcFrame(order)),
    grpc(grpcFrame(gzipSync(order), { flag: 1 }), { 'grpc-encoding': 'gzip' }),
    getRequest({ ...own, principal: '', certificate: '', headers: { authorization: `Bearer ${token}` } }),
    getRequest({
      ...own,
      headers: {
        'x-forwarded-client-cert': `By=${web};URI=${api};Cert="${certificate}";Chain="${certificate}"`,
      },
    }),
    {
      ...getRequest(own),
      request: { http: { path: '/open', headerMap: { headers: [raw] }, body: '{"n":7}' } },
    },
    {
      ...getRequest(own),
      contextExtensions: { a: 'b' },
      tlsSession: { sni: 'a' },
      metadataContext: {
        filterMetadata: {
          a: { fields: { l: { listValue: { values: [{ numberValue: 1 }, { nullValue: 0 as const }] } } } },
        },
        typedFilterMetadata: { t: { type_url: 'a/b', value: Buffer.from([1]) } },
      },
    },
  ];
  seeds = {
    trust: { ...base, snapshot: { ...base.snapshot, jwtBundles } },
    bytes: all.map((attributes) => requests.encode({ attributes: attributes ?? null })),
  };
});

type Change = Readonly<{ kind: number; at: number; length: number; bytes: Uint8Array }>;

/** Flips, cuts, copies and inserts; what is inserted is often a tag, a length or a number of the protobuf encoding. */
const changes: fc.Arbitrary<Change[]> = fc.array(
  fc.record({
    kind: fc.nat(3),
    at: fc.nat(),
    length: fc.nat(40),
    bytes: fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 8 }),
      fc.constantFrom(
        ...[
          'ffffffff0f',
          'ffffffffffffffffff01',
          '80808080808080808000',
          '0b',
          '0c',
          '7b7c',
          '0a00',
          '00',
          'edA080',
          'c0af',
        ].map((hex) => Uint8Array.from(Buffer.from(hex, 'hex'))),
      ),
    ),
  }),
  { minLength: 1, maxLength: 4 },
);

function changed(seed: Buffer, list: readonly Change[]): Buffer {
  return list.reduce((bytes, { kind, at, length, bytes: more }) => {
    const start = bytes.length === 0 ? 0 : at % bytes.length;
    const [head, tail] = [bytes.subarray(0, start), bytes.subarray(start)];
    if (kind === 0) return Buffer.concat([head, Buffer.from(more), tail.subarray(more.length)]);
    if (kind === 1) return Buffer.concat([head, tail.subarray(length)]);
    if (kind === 2) return Buffer.concat([head, tail.subarray(0, length), tail]);
    return Buffer.concat([head, Buffer.from(more), tail]);
  }, seed);
}

/** The request with x-forwarded-client-cert is every other one: without it a trusted header leads to no policy. */
const xfccSeed = 7;

const peerSources = {
  'of the connection': [createMtlsPeerSource({ verifyCertificate: 'when_present', now: () => testNow })],
  'of a token': [
    createMtlsPeerSource({ verifyCertificate: 'when_present', now: () => testNow }),
    createJwtPeerSource({ header: 'authorization', audiences: ['api'], now: () => testNow }),
  ],
  'of a trusted header': [createXfccPeerSource({ verifyCertificate: 'when_present', now: () => testNow })],
} as const;

for (const [what, sources] of Object.entries(peerSources)) {
  test(`whatever becomes of the bytes of a Check, with the peer ${what} it is answered, and never passes as somebody else's`, async () => {
    const faults: unknown[] = [];
    let asked = 0;
    const log = {
      debug() {},
      info() {},
      warn() {},
      error: (fields: object) => void faults.push(fields),
    };
    const checker = checkerWith(seeds.trust, {
      peerSources: sources,
      log,
      body: { parse: true, maxBytes: 4_096, protoTypes: parseDescriptorSet(proto.descriptorSet) },
      engine: functionEngine((_, input) => {
        asked += 1;
        const { spiffe } = input as { spiffe: { source: { id?: string; verified: boolean } } };
        return { kind: 'result', value: spiffe.source.id === web && spiffe.source.verified };
      }),
    });
    const service = createExtAuthzService({
      checker,
      response: { headerMode: 'overwrite', onFailure: 'deny' },
      maxConcurrent: 10,
      timeoutMs: 60_000,
      now: () => testNow,
      monotonicNow: () => performance.now(),
      onDecision() {},
      meter: { checked() {}, evaluated() {} },
    });
    const check = service.methods['Check'];
    assert.ok(check?.kind === 'unary');
    const context = { signal: neverAborted, deadline: undefined, peer: '', metadata: () => [] };
    const judge = async (bytes: Buffer) =>
      responses.decode(check.encode(await check.handle(check.decode(bytes), context)));
    const seedIndex = fc.oneof(fc.nat(seeds.bytes.length - 1), fc.constant(xfccSeed));
    await fc.assert(
      fc.asyncProperty(seedIndex, changes, async (seed, list) => {
        const { status, deniedResponse } = await judge(changed(seeds.bytes[seed] ?? Buffer.alloc(0), list));
        assert.notEqual(status?.code ?? 0, 0);
        assert.ok(deniedResponse !== null);
        assert.deepEqual(faults, []);
      }),
      { numRuns: 1_500 },
    );
    // Else nothing of this is about what a policy sees.
    assert.ok(asked > 0, `the policy was asked ${asked} times`);
  });
}
