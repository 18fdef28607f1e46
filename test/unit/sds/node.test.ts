import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { MessageTypes } from '../../../src/grpc/messages.ts';
import { messageCodec } from '../../../src/grpc/protos.ts';
import { type EnvoyNode, usesSpiffeValidator } from '../../../src/sds/node.ts';
import { decodeSotwRequest } from '../../../src/sds/requests.ts';

type NodeMessage = MessageTypes['envoy.service.discovery.v3.DiscoveryRequest']['in']['node'];

const codec = messageCodec('envoy.service.discovery.v3.DiscoveryRequest');

function decode(node: NodeMessage): EnvoyNode {
  const { node: decoded } = decodeSotwRequest(codec.encode({ node: node ?? null }));
  assert.ok(decoded !== undefined);
  return decoded;
}

function withSwitch(value: object): EnvoyNode {
  return decode({ metadata: { fields: { disable_spiffe_cert_validation: value } } });
}

describe('an Envoy node', () => {
  test('is remembered by id and cluster, cut to a bound', () => {
    assert.deepEqual(decode({ id: 'envoy-1', cluster: 'web' }), {
      id: 'envoy-1',
      cluster: 'web',
      spiffeValidator: undefined,
      supportsSpiffeValidator: true,
    });
    assert.equal(decode({ id: 'x'.repeat(10_000) }).id.length, 256);
  });

  test('is absent from a request that does not carry it', () => {
    assert.equal(decodeSotwRequest(codec.encode({})).node, undefined);
  });

  for (const text of ['1', 't', 'T', 'TRUE', 'true', 'True']) {
    test(`turns the validator off by metadata "${text}", whatever is configured`, () => {
      const node = withSwitch({ stringValue: text });
      assert.equal(usesSpiffeValidator(node, true), false);
      assert.equal(usesSpiffeValidator(node, false), false);
    });
  }

  for (const text of ['0', 'f', 'F', 'FALSE', 'false', 'False']) {
    test(`turns the validator on by metadata "${text}", whatever is configured`, () => {
      const node = withSwitch({ stringValue: text });
      assert.equal(usesSpiffeValidator(node, true), true);
      assert.equal(usesSpiffeValidator(node, false), true);
    });
  }

  test('switches by a boolean as well', () => {
    assert.equal(usesSpiffeValidator(withSwitch({ boolValue: true }), true), false);
    assert.equal(usesSpiffeValidator(withSwitch({ boolValue: false }), false), true);
  });

  for (const value of [
    { stringValue: 'yes' },
    { stringValue: '' },
    { numberValue: 1 },
    { nullValue: 'NULL_VALUE' },
  ]) {
    test(`is not understood with metadata ${JSON.stringify(value)}, so the configuration decides`, () => {
      const node = withSwitch(value);
      assert.equal(usesSpiffeValidator(node, true), true);
      assert.equal(usesSpiffeValidator(node, false), false);
    });
  }

  const versions: readonly (readonly [number, number, boolean])[] = [
    [0, 99, false],
    [1, 16, false],
    [1, 17, false],
    [1, 18, true],
    [1, 40, true],
    [2, 0, true],
  ];
  for (const [majorNumber, minorNumber, supported] of versions) {
    test(`of version ${majorNumber}.${minorNumber} ${supported ? 'has' : 'does not have'} the validator`, () => {
      const node = decode({ userAgentBuildVersion: { version: { majorNumber, minorNumber, patch: 9 } } });
      assert.equal(usesSpiffeValidator(node, true), supported);
    });
  }

  test('that is too old does not get the validator even when its metadata asks for it', () => {
    const node = decode({
      metadata: { fields: { disable_spiffe_cert_validation: { boolValue: false } } },
      userAgentBuildVersion: { version: { majorNumber: 1, minorNumber: 17 } },
    });
    assert.equal(usesSpiffeValidator(node, true), false);
  });

  test('that tells its version in words, in a build version without numbers or not at all is new enough', () => {
    assert.equal(usesSpiffeValidator(decode({ userAgentVersion: '1.2.3' }), true), true);
    assert.equal(usesSpiffeValidator(decode({ userAgentBuildVersion: {} }), true), true);
    assert.equal(usesSpiffeValidator(undefined, true), true);
    assert.equal(usesSpiffeValidator(undefined, false), false);
  });
});
