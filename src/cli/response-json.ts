import { decodeStructFields } from '../extauthz/struct.ts';
import { messageCodec } from '../grpc/protos.ts';

/** A CheckResponse as protobuf's JSON has it, in snake_case, without fields that hold their default. */
export function responseToJson(bytes: Buffer): unknown {
  const response = messageCodec('envoy.service.auth.v3.CheckResponse').decode(bytes);
  const { status, dynamicMetadata, okResponse, deniedResponse, errorResponse } = response;
  return {
    // Zero is the default, but also the very answer: OK.
    status: { code: status?.code ?? 0, ...asObject(withoutDefaults({ message: status?.message })) },
    ...asObject(withoutDefaults({ okResponse, deniedResponse, errorResponse })),
    ...(dynamicMetadata === null ? {} : { dynamic_metadata: decodeStructFields(dynamicMetadata.fields) }),
  };
}

function withoutDefaults(value: unknown): unknown {
  if (Array.isArray(value))
    return value.length === 0 ? undefined : value.map((item) => withoutDefaults(item) ?? {});
  if (Buffer.isBuffer(value)) return value.length === 0 ? undefined : value.toString('base64');
  if (typeof value !== 'object' || value === null) {
    return value === null || value === '' || value === 0 || value === false || value === '0'
      ? undefined
      : value;
  }
  const entries = Object.entries(value)
    .map(
      ([name, child]) =>
        [snakeCase(name), name === 'append' ? wrapped(child) : withoutDefaults(child)] as const,
    )
    .filter(([, child]) => child !== undefined);
  return Object.fromEntries(entries);
}

/** A BoolValue is what it holds, and false is not the same as its absence. */
function wrapped(message: unknown): unknown {
  return message === null || message === undefined
    ? undefined
    : (asObject(message) as { value?: unknown }).value;
}

function asObject(value: unknown): object {
  return typeof value === 'object' && value !== null ? value : {};
}

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
