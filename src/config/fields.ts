import { z } from 'zod';
import { messageOf } from '../runtime/errors.ts';
import { parseHttpsUrl } from '../runtime/https-url.ts';
import { formatHostPort, formatSocketAddress } from '../runtime/socket-address.ts';
import { formatIdTemplate, parseIdTemplate } from '../spiffe/id-template.ts';
import { parseIdPattern } from '../spiffe/match.ts';
import { parseSpiffeId, parseTrustDomain } from '../spiffe/spiffe-id.ts';
import {
  parseBundleUrl,
  parseEngineUrl,
  parseHostPort,
  parseJwksUrl,
  parseListenAddress,
  parseServiceUrl,
  parseTlsListenAddress,
} from './address.ts';
import { formatDuration, formatMode, formatSize, parseDuration, parseMode, parseSize } from './units.ts';

/** What a field's description may say beside its sentence; the reference in docs/config.md prints it. */
export type FieldMeta = Readonly<{
  type?: string | undefined;
  bounds?: string | undefined;
  otherwise?: string | undefined;
}>;

/** What a field is and an example of it, as error messages and the reference put it. */
type Wording = readonly [type: string, example: string];

const socket: Wording = ['socket address', 'unix:///run/app.sock'];

/** A duration within bounds, both included; milliseconds in the Config. */
export const duration = (min: string, max: string) =>
  within(
    ['duration', '10s'],
    { min: parseDuration(min), max: parseDuration(max) },
    parseDuration,
    formatDuration,
  );

/** A size within bounds, both included; bytes in the Config. */
export const size = (min: string, max: string) =>
  within(['size', '1MiB'], { min: parseSize(min), max: parseSize(max) }, parseSize, formatSize);

export const fileMode = () => written(['file mode', '"0660"'], parseMode, formatMode);

export const listenAddress = () => written(socket, parseListenAddress, formatSocketAddress);

/** One that may have TLS, and then be tcp off loopback. */
export const tlsListenAddress = () => written(socket, parseTlsListenAddress, formatSocketAddress);

/** The address of a Workload API, in any form that the standard has: what follows the scheme is the workload room's. */
export const endpointAddress = () =>
  checked(socket, (text) => {
    if (!/^(?:unix|tcp):/i.test(text)) throw new Error('must be unix:///PATH or tcp://IP:PORT');
  });

export const hostPort = () => written(['IP and port', '127.0.0.1:9902'], parseHostPort, formatHostPort);

export const engineUrl = () => written(['URL', 'http://127.0.0.1:8181'], parseEngineUrl, String);

export const bundleUrl = () =>
  written(['URL', 'https://bundles.example.org/authz.tar.gz'], parseBundleUrl, String);

export const httpsUrl = () => written(['URL', 'https://spire.example.org:8443'], parseHttpsUrl, String);

export const trustDomain = () => written(['trust domain', 'example.org'], parseTrustDomain, String);

export const idPattern = () =>
  written(['SPIFFE ID pattern', 'spiffe://example.org/agents/*'], parseIdPattern, (pattern) => pattern.text);

export const spiffeId = () => written(['SPIFFE ID', 'spiffe://example.org/web'], parseSpiffeId, String);

export const idTemplate = () =>
  written(['SPIFFE ID with {sub}', 'spiffe://example.org/agent/{sub}'], parseIdTemplate, formatIdTemplate);

/** The name of a request header that a token may stand in; lower case in the Config. */
export const tokenHeader = () => written(['header name', 'authorization'], parseTokenHeader, String);

export const serviceUrl = () => written(['URL', 'https://logs.example.org/logs'], parseServiceUrl, String);

export const jwksUrl = () => written(['URL', 'https://login.example.org/jwks.json'], parseJwksUrl, String);

/** Text that is checked but kept as it is written. */
export const checked = (type: Wording, check: (text: string) => void) =>
  written(
    type,
    (text) => {
      check(text);
      return text;
    },
    String,
  );

/** A name that other programs use: printable, not empty, not long. */
export const name = () =>
  checked(['text', 'default'], (text) => {
    if (!/^[\u0021-\u007e]{1,256}$/.test(text))
      throw new Error('must be 1 to 256 printable ASCII characters');
  });

/** The name of a policy bundle. */
export const bundleName = () =>
  checked(['name', 'policy'], (text) => {
    if (!/^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$/.test(text))
      throw new Error('must be 1 to 64 letters, digits, dots, hyphens or underscores, and not . or ..');
  });

/** A file; a relative one counts from the folder of the config file. */
export const file = () =>
  checked(['file', 'bundle.tar.gz'], (text) => {
    if (text === '' || text.includes('\0') || Buffer.byteLength(text) > 4096)
      throw new Error('must name a file');
  });

/** The name of a file inside a directory that is given elsewhere. */
export const fileName = () =>
  checked(['file name', 'svid.pem'], (text) => {
    if (!/^(?!\.\.)[^/\0]{1,255}$/.test(text) || text === '.' || Buffer.byteLength(text) > 255)
      throw new Error('must be the name of a file, without a directory, and not begin with ..');
  });

/** Permission bits that give nothing to others. */
export const secretFileMode = () =>
  written(
    ['file mode', '"0600"'],
    (text) => {
      const mode = parseMode(text);
      if ((mode & 0o007) !== 0)
        throw new Error('must give no permission to others, such as "0600" or "0640"');
      return mode;
    },
    formatMode,
  );

/** A field that is text in the file and `parse(text)` in the Config; `format` is its inverse. */
function written<T>(
  [type, example]: Wording,
  parse: (text: string) => T,
  format: (value: T) => string,
  bounds?: string,
) {
  const meta: FieldMeta = { type, bounds };
  return z
    .codec(
      z.string({
        error: ({ input }) =>
          input === undefined ? undefined : `must be text: a ${type} such as ${example}`,
      }),
      z.custom<T>(),
      {
        decode(text, context) {
          try {
            return parse(text);
          } catch (error) {
            context.issues.push({ code: 'custom', message: messageOf(error), input: text });
            return z.NEVER;
          }
        },
        encode: format,
      },
    )
    .meta({ ...meta });
}

function within(
  wording: Wording,
  bounds: { min: number; max: number },
  parse: (text: string) => number,
  format: (value: number) => string,
) {
  const span = `${format(bounds.min)} to ${format(bounds.max)}`;
  return written(
    wording,
    (text) => {
      const value = parse(text);
      if (value < bounds.min || value > bounds.max) throw new Error(`must be ${span}`);
      return value;
    },
    format,
    span,
  );
}

/** Headers that say where a request goes or how long it is; a token in one of them would break it. */
const framingHeaders: ReadonlySet<string> = new Set([
  'host',
  'connection',
  'content-length',
  'transfer-encoding',
  'te',
  'upgrade',
]);

function parseTokenHeader(text: string): string {
  const name = text.toLowerCase();
  if (!/^[a-z0-9!#$%&'*+.^_`|~-]{1,256}$/.test(name) || framingHeaders.has(name)) {
    throw new Error('must be the name of a header that may hold a token');
  }
  return name;
}

/** An OPA decision path; what is in it is judged by the policy room. */
export const decisionPath = () => z.string().max(1024);

/** The shapes of the policy input. */
export const inputShape = () => z.enum(['envoy', 'agentvault', 'agentweave']);
