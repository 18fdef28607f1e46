import type { MessageTypes } from '../grpc/messages.ts';
import { messageCodec } from '../grpc/protos.ts';
import { AppError, LimitError } from '../runtime/errors.ts';
import { decodeNode, type EnvoyNode } from './node.ts';
import { secretTypeUrl } from './secret.ts';

/** Bounds on what one client may ask for. */
export type SdsLimits = Readonly<{
  /** Names that one stream may subscribe to, and that one request may mention in each of its lists. */
  maxNames: number;
  /** Length of one name, in UTF-16 code units; a SPIFFE ID has at most 2048. */
  maxNameLength: number;
}>;

export const defaultLimits: SdsLimits = Object.freeze({ maxNames: 1000, maxNameLength: 2048 });

/** A state-of-the-world request (DiscoveryRequest), bounded and reduced to what SDS uses. */
export type SotwRequest = Readonly<{
  /** Only guaranteed on the first request of a stream. */
  node: EnvoyNode | undefined;
  /** As sent: the difference between an empty list and a list of empty names matters. */
  names: readonly string[];
  nonce: string;
  /** Set when the client refuses what it was sent (NACK): its message, bounded. */
  refusal: string | undefined;
}>;

/** A delta request (DeltaDiscoveryRequest), likewise. */
export type DeltaRequest = Readonly<{
  node: EnvoyNode | undefined;
  subscribe: readonly string[];
  unsubscribe: readonly string[];
  /** What the client still holds from an earlier stream: version by name. */
  initialVersions: ReadonlyMap<string, string>;
  nonce: string;
  refusal: string | undefined;
}>;

type SotwMessage = MessageTypes['envoy.service.discovery.v3.DiscoveryRequest']['out'];
type DeltaMessage = MessageTypes['envoy.service.discovery.v3.DeltaDiscoveryRequest']['out'];

const sotwCodec = messageCodec('envoy.service.discovery.v3.DiscoveryRequest');
const deltaCodec = messageCodec('envoy.service.discovery.v3.DeltaDiscoveryRequest');

/** A version of ours has 32 characters and a nonce hardly more; longer ones can only be foreign. */
const maxTokenLength = 128;
const maxRefusalLength = 512;

/** Throws MalformedError on bytes that are no request, LimitError beyond a limit, `invalid_argument` on another type. */
export function decodeSotwRequest(bytes: Buffer, limits: SdsLimits = defaultLimits): SotwRequest {
  const message = sotwCodec.decode(bytes);
  checkNames(message.resourceNames, limits);
  return Object.freeze({ ...commonOf(message), names: Object.freeze(message.resourceNames) });
}

/** As `decodeSotwRequest`, for the delta protocol. */
export function decodeDeltaRequest(bytes: Buffer, limits: SdsLimits = defaultLimits): DeltaRequest {
  const message = deltaCodec.decode(bytes);
  const versions = Object.entries(message.initialResourceVersions);
  checkNames(message.resourceNamesSubscribe, limits);
  checkNames(message.resourceNamesUnsubscribe, limits);
  checkNames(
    versions.map(([name]) => name),
    limits,
  );
  return Object.freeze({
    ...commonOf(message),
    subscribe: Object.freeze(message.resourceNamesSubscribe),
    unsubscribe: Object.freeze(message.resourceNamesUnsubscribe),
    initialVersions: new Map(versions.map(([name, version]) => [name, version.slice(0, maxTokenLength)])),
  });
}

function commonOf(message: SotwMessage | DeltaMessage) {
  // xDS: the type is implicit in the requests of a singleton service such as this one, so it may be left out.
  if (message.typeUrl !== '' && message.typeUrl !== secretTypeUrl) {
    throw new AppError('invalid_argument', `this service has only resources of type ${secretTypeUrl}`);
  }
  return {
    node: message.node === null ? undefined : decodeNode(message.node),
    nonce: message.responseNonce.slice(0, maxTokenLength),
    refusal: message.errorDetail === null ? undefined : boundedText(message.errorDetail.message),
  };
}

function checkNames(names: readonly string[], limits: SdsLimits): void {
  if (names.length > limits.maxNames) {
    throw new LimitError(`request has more than ${limits.maxNames} resource names`);
  }
  if (names.some((name) => name.length > limits.maxNameLength)) {
    throw new LimitError(`resource name is longer than ${limits.maxNameLength} characters`);
  }
}

/** A client's text for a log line or a page: of bounded length, without control characters. */
function boundedText(text: string): string {
  const clean = text.slice(0, maxRefusalLength).replaceAll(/\p{Cc}+/gu, ' ');
  return clean === '' ? 'no message given' : clean;
}
