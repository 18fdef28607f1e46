import { decodeStructFields } from '../extauthz/struct.ts';
import { messageCodec } from '../grpc/protos.ts';

/** A CheckResponse as protobuf's JSON has it, in snake_case, without fields that hold their default. */
export function responseToJson(bytes: Buffer): unknown {
  const { status, ...rest } = messageCodec('envoy.service.auth.v3.CheckResponse').decode(bytes);
  const plain = withoutDefaults({
    ...rest,
    dynamicMetadata: decodeStructFields(rest.dynamicMetadata?.fields),
  });
  // Zero is the default, but also the very answer: OK.
  return {
    status: { code: status?.code ?? 0, ...asObject(withoutDefaults({ message: status?.message })) },
    ...asObject(plain),
  };
}

function withoutDefaults(value: unknown, key = ''): unknown {
  if (Array.isArray(value))
    return value.length === 0 ? undefined : value.map((item) => withoutDefaults(item) ?? {});
  if (Buffer.isBuffer(value)) return value.length === 0 ? undefined : value.toString('base64');
  if (typeof value !== 'object' || value === null) {
    return value === null || value === '' || value === 0 || value === false || value === '0'
      ? undefined
      : value;
  }
  // What a policy put into its metadata is data, down to its empty texts.
  if (key === 'dynamicMetadata') return value;
  const entries = Object.entries(value)
    // proto-loader adds a member that names the one in use of each oneof.
    .filter(([name, child]) => !(typeof child === 'string' && Object.hasOwn(value, child) && name !== child))
    .map(([name, child]) => [snakeCase(name), withoutDefaults(child, name)] as const)
    .filter(([, child]) => child !== undefined);
  return Object.fromEntries(entries);
}

function asObject(value: unknown): object {
  return typeof value === 'object' && value !== null ? value : {};
}

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
