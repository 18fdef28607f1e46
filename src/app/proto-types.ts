import { readFileSync, statSync } from 'node:fs';
import type { Config } from '../config/config.ts';
import { type ProtoTypes, parseDescriptorSet } from '../extauthz/body/proto-descriptor.ts';
import { ConfigError, LimitError, messageOf } from '../runtime/errors.ts';

const maxDescriptorBytes = 16 * 1024 * 1024;

/** What gRPC bodies are read by, if anything; throws ConfigError when the file is not what it should be. */
export function readProtoTypes({ extAuthz }: Config): ProtoTypes | undefined {
  const { protoDescriptor } = extAuthz.body;
  if (protoDescriptor === undefined) return undefined;
  try {
    if (statSync(protoDescriptor).size > maxDescriptorBytes) throw new LimitError('is larger than 16 MiB');
    return parseDescriptorSet(readFileSync(protoDescriptor));
  } catch (error) {
    const message = `cannot be used: ${messageOf(error)}`;
    throw new ConfigError([{ path: 'ext_authz.body.proto_descriptor', message }]);
  }
}
