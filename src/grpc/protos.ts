import { fileURLToPath } from 'node:url';
import { loadSync, type MessageTypeDefinition, type PackageDefinition } from '@grpc/proto-loader';
import { MalformedError, messageOf } from '../runtime/errors.ts';
import type { MessageName, MessageTypes } from './messages.ts';

/** Turns one message into its bytes and back. */
export type MessageCodec<In, Out> = Readonly<{
  /** Unknown fields are skipped, absent ones hold their default. Throws MalformedError. */
  decode(bytes: Uint8Array): Out;
  /** Throws MalformedError on a value that does not fit its field. */
  encode(value: In): Buffer;
}>;

/** The files that between them import every message in use; proto/ lies beside both src/ and dist/. */
export const protoFiles = Object.freeze([
  'envoy/service/auth/v3/external_auth.proto',
  'envoy/service/discovery/v3/discovery.proto',
  'envoy/service/secret/v3/sds.proto',
  'envoy/extensions/transport_sockets/tls/v3/secret.proto',
  'envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto',
  'spiffe/workload.proto',
  'grpc/health/v1/health.proto',
]);

/** The folder that imports inside `protoFiles` are relative to. */
export const protoDirectory = fileURLToPath(new URL('../../proto', import.meta.url));

const definitions = once(() =>
  loadSync([...protoFiles], {
    keepCase: false,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
    includeDirs: [protoDirectory],
  }),
);

/**
 * The codec of a message, by its full name. Names are camel case, 64-bit numbers and enum values are strings, bytes are
 * Buffers, and each oneof has a member that names the field in use. The same codec packs the `value` of an `Any`. The
 * .proto files are read at the first use of a codec, not before.
 */
export function messageCodec<N extends MessageName>(
  name: N,
): MessageCodec<MessageTypes[N]['in'], MessageTypes[N]['out']> {
  const definition = once(() => messageDefinition(definitions(), name));
  return Object.freeze({
    decode(bytes: Uint8Array) {
      try {
        return definition().deserialize(
          Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes),
        ) as MessageTypes[N]['out'];
      } catch (error) {
        throw new MalformedError(`not a valid ${name}: ${messageOf(error)}`, { cause: error });
      }
    },
    encode(value: MessageTypes[N]['in']) {
      try {
        return definition().serialize(value);
      } catch (error) {
        throw new MalformedError(`cannot be written as ${name}: ${messageOf(error)}`, { cause: error });
      }
    },
  });
}

/** The descriptors of what these files declare, with the names that stand in them; relative ones are in `protoDirectory`. */
export function serviceDescriptors(paths: readonly string[]): PackageDefinition {
  return loadSync([...paths], { keepCase: true, includeDirs: [protoDirectory] });
}

function messageDefinition(loaded: PackageDefinition, name: string): MessageTypeDefinition<object, object> {
  const definition = loaded[name];
  if (definition === undefined || !('serialize' in definition))
    throw new Error(`proto/ has no message ${name}`);
  return definition as MessageTypeDefinition<object, object>;
}

function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}
