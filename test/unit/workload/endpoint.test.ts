import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import { formatSocketAddress } from '../../../src/runtime/socket-address.ts';
import { isLocalEndpoint, parseEndpointAddress } from '../../../src/workload/endpoint.ts';

const unix = (path: string) => ({ kind: 'unix', path });
const tcp = (host: string, port: number) => ({ kind: 'tcp', host, port });

describe('address of the Workload API', () => {
  const accepted: readonly [string, object][] = [
    ['unix:///foo', unix('/foo')],
    ['unix:///run/spire/sockets/agent.sock', unix('/run/spire/sockets/agent.sock')],
    ['unix:/run/agent.sock', unix('/run/agent.sock')],
    ['UNIX:///foo', unix('/foo')],
    ['unix:///a%20b', unix('/a b')],
    ['unix:///a/../b', unix('/a/../b')],
    ['tcp://1.2.3.4:5', tcp('1.2.3.4', 5)],
    ['tcp://127.0.0.1:65535', tcp('127.0.0.1', 65535)],
    ['tcp://[::1]:8080', tcp('::1', 8080)],
  ];
  for (const [text, expected] of accepted) {
    it(`accepts ${text}`, () => assert.deepEqual(parseEndpointAddress(text), expected));
  }

  const refused: readonly [string, RegExp][] = [
    ['', /is empty/],
    ['\t', /control character/],
    ['unix:///a b', /space/],
    ['blah', /no scheme: use unix:\/\/\/path\.sock or tcp/],
    ['/run/agent.sock', /no scheme: use unix:\/\/\/run\/agent\.sock/],
    ['https://1.2.3.4:5', /scheme "https": it must be unix or tcp/],
    ['npipe:pipeName', /scheme "npipe"/],
    ['tcp:opaque', /must start with tcp:\/\//],
    ['tcp:127.0.0.1:8081', /must start with tcp:\/\//],
    ['tcp://', /tcp must include a host/],
    ['tcp://1.2.3.4:5?whatever', /tcp must not include query values/],
    ['tcp://1.2.3.4:5#whatever', /tcp must not include a fragment/],
    ['tcp://john:doe@1.2.3.4:5/path', /tcp must not include user info/],
    ['tcp://1.2.3.4:5/path', /tcp must not include a path/],
    ['tcp://1.2.3.4:5/', /tcp must not include a path/],
    ['tcp://foo', /IP address as its host/],
    ['tcp://localhost:80', /IP address as its host/],
    ['tcp://::1:80', /IP address as its host/],
    ['tcp://[1.2.3.4]:80', /IP address as its host/],
    ['tcp://[fe80::1%25eth0]:80', /IP address as its host/],
    ['tcp://1.2.3.4', /tcp must include a port/],
    ['tcp://1.2.3.4:', /tcp must include a port/],
    ['tcp://1.2.3.4:0', /port from 1 to 65535/],
    ['tcp://1.2.3.4:65536', /port from 1 to 65535/],
    ['tcp://1.2.3.4:8x', /port from 1 to 65535/],
    ['unix:opaque', /absolute path: use unix:\/\/\/opaque/],
    ['unix:tmp/sock', /absolute path: use unix:\/\/\/tmp\/sock/],
    ['unix:', /unix must include a path/],
    ['unix://', /unix must include a path/],
    ['unix:///', /unix must include a path/],
    ['unix://foo?whatever', /unix must not include query values/],
    ['unix://foo#whatever', /unix must not include a fragment/],
    ['unix://john:doe@foo/path', /unix must not include user info/],
    ['unix://foo', /authority \("foo"\): use unix:\/\/\/foo/],
    ['unix://localhost/abs.sock', /authority \("localhost"\)/],
    ['unix://tmp/spire-agent/public/api.sock', /use unix:\/\/\/tmp\/spire-agent\/public\/api\.sock/],
    ['unix:///a%zz', /broken percent-encoding/],
    ['unix:///a%00b', /NUL byte/],
    [`unix:///${'x'.repeat(107)}`, /more than 107 bytes/],
  ];
  for (const [text, message] of refused) {
    it(`refuses ${JSON.stringify(text.slice(0, 60))}`, () => {
      assert.throws(
        () => parseEndpointAddress(text),
        (error) => error instanceof MalformedError && message.test(error.message),
      );
    });
  }

  it('never throws anything but AppError, and reads back what it prints', () => {
    const texts = fc.oneof(
      fc.string(),
      fc
        .tuple(fc.constantFrom('unix:', 'unix://', 'unix:///', 'tcp://', 'tcp:'), fc.string())
        .map((p) => p.join('')),
      fc.tuple(fc.ipV4(), fc.nat(70_000)).map(([ip, port]) => `tcp://${ip}:${port}`),
      fc.tuple(fc.ipV6(), fc.nat(70_000)).map(([ip, port]) => `tcp://[${ip}]:${port}`),
    );
    fc.assert(
      fc.property(texts, (text) => {
        try {
          const address = parseEndpointAddress(text);
          if (!text.includes('%'))
            assert.deepEqual(parseEndpointAddress(formatSocketAddress(address)), address);
        } catch (error) {
          assert.ok(error instanceof AppError, String(error));
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('knows which addresses leave the machine', () => {
    assert.equal(isLocalEndpoint(parseEndpointAddress('unix:///foo')), true);
    assert.equal(isLocalEndpoint(parseEndpointAddress('tcp://127.9.0.1:1')), true);
    assert.equal(isLocalEndpoint(parseEndpointAddress('tcp://[::1]:1')), true);
    assert.equal(isLocalEndpoint(parseEndpointAddress('tcp://10.0.0.1:1')), false);
  });
});
