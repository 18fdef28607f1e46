import assert from 'node:assert/strict';
import { it } from 'node:test';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { buildStruct } from '../../../src/workload/claims-struct.ts';

it('claims of every JSON type survive the wire as a Struct', () => {
  const codec = messageCodec('ValidateJWTSVIDResponse');
  const claims = { s: 'text', n: 1.5, b: false, z: null, list: ['a', 2, [true]], object: { inner: {} } };
  const { claims: wire } = codec.decode(codec.encode({ claims: buildStruct(claims) }));
  const fields = wire?.fields ?? {};
  assert.deepEqual(Object.keys(fields), Object.keys(claims));
  assert.equal(fields['s']?.stringValue, 'text');
  assert.equal(fields['n']?.numberValue, 1.5);
  assert.equal(fields['b']?.boolValue, false);
  assert.equal(fields['z']?.kind, 'nullValue');
  const values = fields['list']?.listValue?.values;
  assert.deepEqual(
    [values?.[0]?.stringValue, values?.[1]?.numberValue, values?.[2]?.listValue?.values[0]?.boolValue],
    ['a', 2, true],
  );
  assert.deepEqual({ ...fields['object']?.structValue?.fields['inner']?.structValue?.fields }, {});
});

it('a claim named __proto__ stays a claim', () => {
  const { fields } = buildStruct(JSON.parse('{"__proto__": {"admin": true}}') as Record<string, unknown>);
  assert.deepEqual(Object.keys(fields ?? {}), ['__proto__']);
  assert.equal(Object.getPrototypeOf(fields), Object.prototype);
});
