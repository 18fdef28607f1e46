import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  parseEngineUrl,
  parseHostPort,
  parseJwksUrl,
  parseListenAddress,
  parseServiceUrl,
} from '../../../src/config/address.ts';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import { formatHostPort, formatSocketAddress } from '../../../src/runtime/socket-address.ts';

describe('socket addresses', () => {
  const accepted: readonly [string, object][] = [
    ['unix:///run/a.sock', { kind: 'unix', path: '/run/a.sock' }],
    ['unix:/run/a.sock', { kind: 'unix', path: '/run/a.sock' }],
    ['unix:///a/../b', { kind: 'unix', path: '/a/../b' }],
    ['tcp://127.0.0.1:0', { kind: 'tcp', host: '127.0.0.1', port: 0 }],
    ['tcp://127.8.8.8:65535', { kind: 'tcp', host: '127.8.8.8', port: 65_535 }],
    ['tcp://[::1]:1', { kind: 'tcp', host: '::1', port: 1 }],
  ];
  for (const [text, address] of accepted) {
    it(`accepts ${text}`, () => assert.deepEqual(parseListenAddress(text), address));
  }

  const refused: readonly [string, RegExp][] = [
    ['', /unix:\/\/\/PATH or tcp/],
    ['/run/a.sock', /unix:\/\/\/PATH or tcp/],
    ['unix://run/a.sock', /write unix:\/\/\/run\/a\.sock/],
    ['unix:a.sock', /absolute path/],
    ['unix:///run/', /not a directory/],
    ['unix:///a?b', /query/],
    ['unix:///a\u0000b', /control character/],
    [`unix:///${'a'.repeat(107)}`, /longer than the 107 bytes/],
    ['tcp://0.0.0.0:1', /loopback/],
    ['tcp://10.0.0.1:1', /loopback/],
    ['tcp://[::]:1', /loopback/],
    ['tcp://localhost:1', /IP address and a port/],
    ['tcp://127.0.0.1', /IP address and a port/],
    ['tcp://127.0.0.1:65536', /above 65535/],
    ['tcp://1.2.3.4:5/path', /IP address and a port/],
  ];
  for (const [text, message] of refused) {
    it(`refuses ${JSON.stringify(text.slice(0, 40))}`, () =>
      assert.throws(() => parseListenAddress(text), { name: 'MalformedError', message }));
  }

  it('takes a path of exactly 107 bytes', () => {
    assert.deepEqual(parseListenAddress(`unix:///${'a'.repeat(106)}`), {
      kind: 'unix',
      path: `/${'a'.repeat(106)}`,
    });
  });

  it('takes any interface for the admin server, but no name', () => {
    assert.deepEqual(parseHostPort('0.0.0.0:9903'), { host: '0.0.0.0', port: 9903 });
    assert.equal(formatHostPort(parseHostPort('[::]:9903')), '[::]:9903');
    for (const text of ['localhost:1', '::1:1', '[127.0.0.1]:1', '1.2.3:4', ':1', '127.0.0.1:']) {
      assert.throws(() => parseHostPort(text), MalformedError, text);
    }
  });

  it('formats what it parses to the same address', () => {
    const path = fc.stringMatching(/^\/[a-z0-9/._-]{0,50}[a-z0-9]$/).filter((text) => !text.startsWith('//'));
    fc.assert(
      fc.property(path, (text) => {
        const address = { kind: 'unix', path: text } as const;
        assert.deepEqual(parseListenAddress(formatSocketAddress(address)), address);
      }),
    );
    fc.assert(
      fc.property(fc.constantFrom('127.0.0.1', '::1'), fc.nat(65_535), (host, port) => {
        assert.deepEqual(parseListenAddress(formatSocketAddress({ kind: 'tcp', host, port })), {
          kind: 'tcp',
          host,
          port,
        });
      }),
    );
  });

  it('throws nothing but AppError, whatever the text', () => {
    const text = fc.oneof(
      fc.string(),
      fc.string().map((rest) => `unix:${rest}`),
      fc.string().map((rest) => `tcp://${rest}`),
      fc.string().map((rest) => `http://${rest}`),
    );
    fc.assert(
      fc.property(
        text,
        fc.constantFrom(parseListenAddress, parseHostPort, parseEngineUrl),
        (input, parse) => {
          try {
            parse(input);
          } catch (error) {
            assert.ok(error instanceof AppError);
          }
        },
      ),
    );
  });
});

describe('address of the policy engine', () => {
  for (const url of [
    'http://127.0.0.1:8181',
    'https://opa.example/prefix',
    'http://opa:8181',
    'unix:///run/opa.sock',
  ]) {
    it(`accepts ${url}`, () => assert.equal(parseEngineUrl(url), url));
  }
  const refused: readonly [string, RegExp][] = [
    ['opa:8181', /must be http/],
    ['ftp://opa', /must be http/],
    ['http://', /must be http/],
    ['http://a:b@opa', /user name or password/],
    ['http://opa?x=1', /query or a fragment/],
    ['unix://opa.sock', /unix:\/\/\/opa\.sock/],
  ];
  for (const [text, message] of refused) {
    it(`refuses ${text}`, () =>
      assert.throws(() => parseEngineUrl(text), { name: 'MalformedError', message }));
  }
});

describe("address of an issuer's keys", () => {
  for (const url of [
    'https://login.example.org/.well-known/jwks.json',
    'https://login.example.org:8443/keys?tenant=a',
    'http://127.0.0.1:8080/jwks.json',
    'http://[::1]:8080/jwks.json',
  ]) {
    it(`accepts ${url}`, () => assert.equal(parseJwksUrl(url), url));
  }

  for (const url of [
    'http://login.example.org/jwks.json',
    'http://localhost/jwks.json',
    'http://127.0.0.1.example.org/jwks.json',
    'https://user:secret@login.example.org/jwks.json',
    'https://login.example.org/jwks.json#keys',
    'ftp://login.example.org/jwks.json',
    'unix:///run/jwks.sock',
    'rubbish',
    '',
  ]) {
    it(`refuses ${url}`, () => assert.throws(() => parseJwksUrl(url), MalformedError));
  }

  it('a service of ours has no query, where a token might stand', () => {
    assert.equal(parseServiceUrl('https://logs.example.org/logs/'), 'https://logs.example.org/logs/');
    for (const url of ['https://logs.example.org/logs?token=a', 'http://logs.example.org/logs']) {
      assert.throws(() => parseServiceUrl(url), MalformedError, url);
    }
  });
});
