import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { before, describe, test } from 'node:test';
import { loadSync } from '@grpc/proto-loader';
import { encodeSpiffeValidator, encodeTlsCertificate, encodeTrustedCa } from '../../../src/sds/secret.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { createTestAuthority, type TestAuthority } from '../../support/ca.ts';

// Decoded with Envoy's own protos, not ours: bytes are only right if a stranger reads them so.
const deps = join(dirname(createRequire(import.meta.url).resolve('@grpc/grpc-js-xds/package.json')), 'deps');
const upstream = loadSync(
  [
    'envoy/extensions/transport_sockets/tls/v3/secret.proto',
    'envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto',
  ],
  {
    keepCase: true,
    oneofs: true,
    includeDirs: ['envoy-api', 'xds', 'googleapis', 'protoc-gen-validate'].map((name) => join(deps, name)),
  },
);

function decode(name: 'Secret' | 'SPIFFECertValidatorConfig', bytes: Buffer): unknown {
  const definition = upstream[`envoy.extensions.transport_sockets.tls.v3.${name}`];
  assert.ok(definition !== undefined && 'deserialize' in definition);
  return (definition.deserialize as (bytes: Buffer) => unknown)(bytes);
}

function pemBlocks(pem: Buffer): readonly string[] {
  return (
    pem.toString('latin1').match(/-----BEGIN [A-Z ]+-----\n[A-Za-z0-9+/=\n]+-----END [A-Z ]+-----\n/g) ?? []
  );
}

describe('a Secret in the eyes of Envoy', () => {
  let authority: TestAuthority;
  let other: TestAuthority;
  before(async () => {
    authority = await createTestAuthority('example.org');
    other = await createTestAuthority('partner.example');
  });

  test('is a tls_certificate with one PEM block a certificate, leaf first, and a PKCS#8 key that fits', async () => {
    const intermediate = await authority.intermediate();
    const svid = await intermediate.svid('spiffe://example.org/web', { through: [intermediate] });
    const secret = decode('Secret', encodeTlsCertificate('default', svid)) as {
      tls_certificate: { certificate_chain: { inline_bytes: Buffer }; private_key: { inline_bytes: Buffer } };
    };
    const chain = secret.tls_certificate.certificate_chain.inline_bytes;
    const key = secret.tls_certificate.private_key.inline_bytes;
    assert.deepEqual(secret, {
      name: 'default',
      type: 'tls_certificate',
      tls_certificate: {
        certificate_chain: { inline_bytes: chain, specifier: 'inline_bytes' },
        private_key: { inline_bytes: key, specifier: 'inline_bytes' },
      },
    });
    const blocks = pemBlocks(chain);
    assert.equal(blocks.join(''), chain.toString('latin1'));
    assert.deepEqual(
      blocks.map((block) => new X509Certificate(block).raw),
      svid.chain.map(({ der }) => der),
    );
    assert.ok(
      chain
        .toString('latin1')
        .split('\n')
        .every((line) => line.length <= 64),
    );
    assert.match(key.toString('latin1'), /^-----BEGIN PRIVATE KEY-----\n/);
    const [leaf = ''] = blocks;
    assert.ok(new X509Certificate(leaf).checkPrivateKey(createPrivateKey(key)));
  });

  test('is a validation_context for the SPIFFE validator, one entry a trust domain, without SAN matchers', () => {
    const trust = [
      { trustDomain: parseTrustDomain('example.org'), authorities: [authority.certificate] },
      {
        trustDomain: parseTrustDomain('partner.example'),
        authorities: [other.certificate, authority.certificate],
      },
    ];
    const secret = decode('Secret', encodeSpiffeValidator('ALL', trust)) as {
      validation_context: { custom_validator_config: { typed_config: { value: Buffer } } };
    };
    const { value } = secret.validation_context.custom_validator_config.typed_config;
    assert.deepEqual(secret, {
      name: 'ALL',
      type: 'validation_context',
      validation_context: {
        custom_validator_config: {
          name: 'envoy.tls.cert_validator.spiffe',
          typed_config: {
            type_url:
              'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig',
            value,
          },
        },
      },
    });
    const config = decode('SPIFFECertValidatorConfig', value) as {
      trust_domains: { name: string; trust_bundle: { inline_bytes: Buffer } }[];
    };
    assert.deepEqual(
      config.trust_domains.map(({ name, trust_bundle }) => [
        name,
        pemBlocks(trust_bundle.inline_bytes).map((block) => new X509Certificate(block).raw),
      ]),
      [
        ['example.org', [authority.certificate.der]],
        ['partner.example', [other.certificate.der, authority.certificate.der]],
      ],
    );
  });

  test('is a validation_context with trusted_ca and nothing else', () => {
    const secret = decode(
      'Secret',
      encodeTrustedCa('ROOTCA', [authority.certificate, other.certificate]),
    ) as {
      validation_context: { trusted_ca: { inline_bytes: Buffer } };
    };
    const pem = secret.validation_context.trusted_ca.inline_bytes;
    assert.deepEqual(secret, {
      name: 'ROOTCA',
      type: 'validation_context',
      validation_context: { trusted_ca: { inline_bytes: pem, specifier: 'inline_bytes' } },
    });
    assert.equal(pemBlocks(pem).length, 2);
  });
});
