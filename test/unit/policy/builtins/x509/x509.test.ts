import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { EvaluationContext } from '../../../../../src/policy/builtins/args.ts';
import { formatUrl, parseUrl } from '../../../../../src/policy/builtins/go-url.ts';
import { pemBlocks } from '../../../../../src/policy/builtins/pem-blocks.ts';
import { canonical, type Value } from '../../../../../src/policy/builtins/value.ts';
import { x509Builtins } from '../../../../../src/policy/builtins/x509/x509.ts';
import { AppError, LimitError } from '../../../../../src/runtime/errors.ts';
import {
  alternativeNames,
  basicConstraints,
  certificate,
  ecKey,
  general,
  integer,
  name,
  nameConstraints,
  pem,
} from '../../../../support/der-certificates.ts';

const key = ecKey();
const rich = certificate({
  key,
  extensions: [
    alternativeNames([general.uri('spiffe://example.org/a'), general.dns('a.example')]),
    basicConstraints(true, 1),
    nameConstraints([general.dns('example')], []),
  ],
});

function call(builtin: string, args: readonly Value[], nowNs = 1_760_000_000_000_000_000n): Value {
  const context: EvaluationContext = { nowNs, memory: new Map(), random: () => 0.5 };
  return x509Builtins[builtin]?.(args, context) ?? null;
}

test('a certificate of any bytes gives a value, or an error that is ours', () => {
  const changes = fc.array(fc.tuple(fc.nat({ max: rich.length - 1 }), fc.nat({ max: 255 })), {
    minLength: 1,
    maxLength: 4,
  });
  fc.assert(
    fc.property(changes, (changed) => {
      const bytes = Buffer.from(rich);
      for (const [at, byte] of changed) bytes[at] = byte;
      try {
        call('crypto.x509.parse_certificates', [bytes.toString('base64')]);
      } catch (error) {
        assert.ok(error instanceof AppError);
      }
    }),
    { numRuns: 1000 },
  );
});

test('a URL that can be read is read the same again when it was put together', () => {
  const pieces = fc.constantFrom(
    'http',
    ':',
    '//',
    '/',
    '?',
    '#',
    '@',
    '[::1]',
    'a.example',
    '%2f',
    '%zz',
    ' ',
    ';',
    '8080',
  );
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 8 }), (parts) => {
      const written = parts.join('');
      try {
        const url = parseUrl(written);
        // Go writes a path that begins so as it is, and reads it as a host.
        if (url.host === '' && url.user === undefined && url.path.startsWith('//')) return;
        const once = formatUrl(url);
        assert.equal(formatUrl(parseUrl(once)), once);
      } catch (error) {
        assert.ok(error instanceof AppError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('PEM of any text never throws, and finds what was written', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary' }),
      fc.uint8Array({ minLength: 1, maxLength: 100 }),
      (before, bytes) => {
        const blocks = pemBlocks(`${before}\n${pem('THING', Buffer.from(bytes))}`);
        assert.deepEqual(blocks.at(-1), { type: 'THING', der: Buffer.from(bytes) });
      },
    ),
  );
});

test('a chain holds at the time of the evaluation only', () => {
  const root = certificate({ key, subject: name(['2.5.4.3', 'root']), extensions: [basicConstraints(true)] });
  const leaf = certificate({ key: ecKey(), issuer: { key, subject: name(['2.5.4.3', 'root']) } });
  const chain = pem('CERTIFICATE', root) + pem('CERTIFICATE', leaf);
  const builtin = 'crypto.x509.parse_and_verify_certificates';
  const [valid] = call(builtin, [chain]) as readonly Value[];
  assert.equal(valid, true);
  assert.equal(canonical(call(builtin, [chain], 1n)), '[false,[]]');
});

test('what is beyond a bound ends the evaluation', () => {
  const many = Buffer.concat(Array.from({ length: 1001 }, () => certificateOfLittle));
  const names = Array.from({ length: 2000 }, (_, index) => general.dns(`n${index}.example`));
  const root = certificate({
    key,
    subject: name(['2.5.4.3', 'root']),
    extensions: [basicConstraints(true), nameConstraints([], names)],
  });
  const leaf = certificate({
    key: ecKey(),
    issuer: { key, subject: name(['2.5.4.3', 'root']) },
    extensions: [alternativeNames(names)],
  });
  for (const text of [many, Buffer.alloc(900_000), Buffer.concat([root, leaf])]) {
    const builtin = 'crypto.x509.parse_and_verify_certificates';
    assert.throws(() => call(builtin, [text.toString('base64')]), LimitError);
  }
});

const certificateOfLittle = certificate({
  key,
  serial: integer(1),
  subject: name(),
  issuer: { key, subject: name() },
});
