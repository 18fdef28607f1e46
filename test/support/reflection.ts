import { join } from 'node:path';
import { type ChannelCredentials, Client } from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer, loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';

const protos = join(import.meta.dirname, '../../node_modules/@grpc/reflection/build/proto');

type Answer = Readonly<{
  listServicesResponse?: { service: readonly { name: string }[] };
  fileDescriptorResponse?: { fileDescriptorProto: readonly Buffer[] };
  errorResponse?: { errorCode: number };
}>;

/** Asks a server's reflection service: the services that it lists, the names of all that their files declare, and the files. */
export async function reflect(
  target: string,
  credentials: ChannelCredentials,
  version: 'v1' | 'v1alpha' = 'v1',
): Promise<{ services: readonly string[]; declared: readonly string[]; files: Buffer }> {
  const definitions = loadSync(join(protos, `grpc/reflection/${version}/reflection.proto`));
  const message = (name: string) =>
    definitions[`grpc.reflection.${version}.${name}`] as MessageTypeDefinition<object, object>;
  const [request, response] = [message('ServerReflectionRequest'), message('ServerReflectionResponse')];
  const client = new Client(target, credentials, { 'grpc.default_authority': 'localhost' });
  try {
    const stream = client.makeBidiStreamRequest(
      `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
      request.serialize,
      response.deserialize,
    );
    const answers = stream[Symbol.asyncIterator]() as AsyncIterator<Answer, undefined>;
    const ask = async (question: object): Promise<Answer> => {
      stream.write(question);
      const { value } = await answers.next();
      if (value === undefined) throw new Error('the stream ended without an answer');
      return value;
    };
    const listed = await ask({ listServices: '*' });
    const services = (listed.listServicesResponse?.service ?? []).map(({ name }) => name);
    const declared = new Set<string>();
    const all: Buffer[] = [];
    for (const name of services) {
      const { fileDescriptorResponse } = await ask({ fileContainingSymbol: name });
      const files = fileDescriptorResponse?.fileDescriptorProto ?? [];
      all.push(...files);
      // A FileDescriptorSet is its files as field 1.
      const set = Buffer.concat(files.flatMap((file) => [Buffer.of(0x0a), varint(file.length), file]));
      for (const one of Object.keys(loadFileDescriptorSetFromBuffer(set))) declared.add(one);
    }
    stream.end();
    return { services, declared: [...declared], files: Buffer.concat(all) };
  } finally {
    client.close();
  }
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let left = value;
  for (; left >= 0x80; left >>= 7) bytes.push((left & 0x7f) | 0x80);
  return Buffer.from([...bytes, left]);
}
