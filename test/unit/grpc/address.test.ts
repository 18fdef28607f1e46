import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatListenAddress, type ListenAddress, parseListenAddress } from '../../../src/grpc/address.ts';
import { AppError } from '../../../src/runtime/errors.ts';

describe('a listen address', () => {
  for (const [text, address] of [
    ['unix:///run/svidecar/svidecar.sock', { kind: 'unix', path: '/run/svidecar/svidecar.sock' }],
    ['unix:/run/x.sock', { kind: 'unix', path: '/run/x.sock' }],
    ['unix:///a/../b.sock', { kind: 'unix', path: '/a/../b.sock' }],
    [`unix:///${'x'.repeat(106)}`, { kind: 'unix', path: `/${'x'.repeat(106)}` }],
    ['tcp://127.0.0.1:9901', { kind: 'tcp', host: '127.0.0.1', port: 9901 }],
    ['tcp://[::1]:0', { kind: 'tcp', host: '::1', port: 0 }],
    ['tcp://localhost:65535', { kind: 'tcp', host: 'localhost', port: 65535 }],
  ] as const) {
    it(`may be ${text.slice(0, 60)}`, () => assert.deepEqual(parseListenAddress(text), address));
  }

  for (const [text, why] of [
    ['', 'start with'],
    ['/run/x.sock', 'start with'],
    ['http://127.0.0.1:1', 'start with'],
    ['unix://run/x.sock', 'three slashes'],
    ['unix:run/x.sock', 'absolute'],
    ['unix:', 'absolute'],
    ['unix:////x.sock', 'two slashes'],
    ['unix:///run/', 'not a directory'],
    ['unix:///run/x\u0000.sock', 'control characters'],
    ['unix:///run/x.sock?mode=1', 'query'],
    [`unix:///${'x'.repeat(107)}`, '108 bytes'],
    [`unix:///${'ü'.repeat(54)}`, '109 bytes'],
    ['tcp://127.0.0.1', 'a port'],
    ['tcp://:9901', 'a port'],
    ['tcp://example.org:9901', 'IP address'],
    ['tcp://::1:9901', 'a port'],
    ['tcp://[127.0.0.1]:9901', 'IP address'],
    ['tcp://127.0.0.1:65536', '65535'],
    ['tcp://127.0.0.1:99/x', 'a port'],
    ['tcp://user@127.0.0.1:99', 'a port'],
  ] as const) {
    it(`may not be ${JSON.stringify(text.slice(0, 60))}`, () => {
      assert.throws(
        () => parseListenAddress(text),
        (error) => error instanceof AppError && error.code === 'malformed' && error.message.includes(why),
      );
    });
  }

  it('reads back what was formatted', () => {
    const port = fc.integer({ min: 0, max: 65_535 });
    const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.constant('localhost'));
    const segment = fc.stringMatching(/^[\w. -]{1,10}$/);
    const address: fc.Arbitrary<ListenAddress> = fc.oneof(
      fc.tuple(host, port).map(([h, p]) => ({ kind: 'tcp' as const, host: h, port: p })),
      fc
        .array(segment, { minLength: 1, maxLength: 8 })
        .map((segments) => ({ kind: 'unix' as const, path: `/${segments.join('/')}` })),
    );
    fc.assert(fc.property(address, (a) => assert.deepEqual(parseListenAddress(formatListenAddress(a)), a)));
  });

  it('is refused with an AppError and nothing else', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string().map((s) => `unix:${s}`),
      fc.string().map((s) => `tcp://${s}`),
    );
    fc.assert(
      fc.property(text, (s) => {
        try {
          parseListenAddress(s);
        } catch (error) {
          assert.ok(error instanceof AppError);
        }
      }),
    );
  });
});
