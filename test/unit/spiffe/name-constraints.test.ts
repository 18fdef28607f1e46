import 'reflect-metadata';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as x509 from '@peculiar/x509';
import fc from 'fast-check';
import { AppError } from '../../../src/runtime/errors.ts';
import { decodeNameConstraints, permitsUriHost } from '../../../src/spiffe/name-constraints.ts';
import { verifyX509Svid } from '../../../src/spiffe/verify.ts';
import {
  type CertificateTemplate,
  createTestAuthority,
  testNow,
  x509Bundle,
  x509Bundles,
} from '../../support/ca.ts';

const permitted = 0xa0;
const excluded = 0xa1;
const dns = 2;
const directory = 4;
const uri = 6;

function der(tag: number, ...content: readonly Buffer[]): Buffer {
  const body = Buffer.concat(content);
  return Buffer.concat([Buffer.of(tag, body.length), body]);
}

/** Each entry: permitted or excluded, the kind of name, its value. */
function constraints(...subtrees: readonly (readonly [number, number, string | Buffer])[]): x509.Extension {
  const lists = [permitted, excluded].map((list) =>
    subtrees
      .filter(([kind]) => kind === list)
      .map(([, type, value]) =>
        der(0x30, der(type === directory ? 0xa4 : 0x80 | type, Buffer.from(value as string))),
      ),
  );
  const content = lists.flatMap((list, index) => (list.length > 0 ? [der(permitted + index, ...list)] : []));
  return new x509.Extension('2.5.29.30', true, der(0x30, ...content));
}

async function verifyBelow(
  extension: x509.Extension,
  template: CertificateTemplate = {},
  middleTemplate: CertificateTemplate = {},
) {
  const subject = 'CN=authority';
  const root = await createTestAuthority('example.org', { subject, extensions: [extension] });
  const middle = await root.intermediate(middleTemplate);
  const { certificate } = await middle.leaf(template);
  const bundles = x509Bundles(x509Bundle('example.org', [root]));
  return verifyX509Svid([certificate, middle.certificate], bundles, testNow);
}

for (const [what, extension, template, valid] of [
  ['its own trust domain', constraints([permitted, uri, 'example.org']), {}, true],
  ['its own trust domain in upper case', constraints([permitted, uri, 'EXAMPLE.org']), {}, true],
  [
    'one of two trust domains',
    constraints([permitted, uri, 'a.b'], [permitted, uri, 'example.org']),
    {},
    true,
  ],
  ['subdomains of its parent', constraints([permitted, uri, '.org']), {}, true],
  ['another trust domain', constraints([permitted, uri, 'partner.example']), {}, false],
  ['its own subdomains only', constraints([permitted, uri, '.example.org']), {}, false],
  ['all but another trust domain', constraints([excluded, uri, 'partner.example']), {}, true],
  ['all but its own trust domain', constraints([excluded, uri, 'example.org']), {}, false],
  ['all but subdomains of its parent', constraints([excluded, uri, '.org']), {}, false],
  [
    'itself, but excluded too',
    constraints([permitted, uri, 'example.org'], [excluded, uri, 'example.org']),
    {},
    false,
  ],
  ['DNS names that the leaf does not have', constraints([permitted, dns, 'example.org']), {}, true],
  ['DNS names, while the leaf has one', constraints([permitted, dns, 'a.b']), { dnsNames: ['a.b'] }, false],
  [
    'directory names, while intermediates have one',
    constraints([permitted, directory, der(0x30)]),
    {},
    false,
  ],
] as const) {
  test(`an authority limited to ${what} ${valid ? 'may sign' : 'may not sign'}`, async () => {
    const result = await verifyBelow(extension, template);
    assert.equal(result.valid, valid, JSON.stringify(result));
    if (!result.valid) assert.equal(result.reason, 'untrusted_chain');
  });
}

test('a self-issued intermediate is not held against the constraints', async () => {
  const extension = constraints([permitted, directory, der(0x30)]);
  assert.equal((await verifyBelow(extension, {}, { subject: 'CN=authority' })).valid, true);
  assert.equal((await verifyBelow(extension, {}, { subject: 'CN=other' })).valid, false);
});

test('constraints that cannot be read refuse the certificate', async () => {
  const broken = [der(0x30, der(0xa2)), der(0x30, der(permitted, der(0x30))), Buffer.of(0x30, 0x05)];
  for (const value of broken) {
    const extension = new x509.Extension('2.5.29.30', true, value);
    await assert.rejects(createTestAuthority('example.org', { extensions: [extension] }), /malformed/);
  }
});

test('a subtree with minimum or maximum is not taken for one without', async () => {
  const subtree = der(0x30, der(0x86, Buffer.from('example.org')), der(0x81, Buffer.of(1)));
  const extension = new x509.Extension('2.5.29.30', true, der(0x30, der(permitted, subtree)));
  await assert.rejects(createTestAuthority('example.org', { extensions: [extension] }), /broken subtree/);
});

test('whatever the bytes, they are constraints that any host can be held against, or an AppError', () => {
  const good = constraints(
    [permitted, uri, 'example.org'],
    [excluded, uri, '.partner.example'],
    [excluded, dns, 'x'],
  );
  const bytes = Buffer.from(good.value);
  const garbled = fc
    .array(fc.record({ at: fc.nat(bytes.length - 1), byte: fc.nat(255) }), { maxLength: 4 })
    .map((edits) => {
      const copy = Buffer.from(bytes);
      for (const { at, byte } of edits) copy[at] = byte;
      return copy;
    });
  const any = fc.uint8Array({ maxLength: 64 }).map((array) => Buffer.from(array));
  fc.assert(
    fc.property(fc.oneof(garbled, any), fc.string(), (der, host) => {
      try {
        const decoded = decodeNameConstraints(der);
        assert.ok(decoded !== undefined);
        assert.equal(typeof permitsUriHost(decoded, host), 'boolean');
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
