import protobuf from 'protobufjs';
import 'protobufjs/ext/descriptor/index.js';

/** What protoc would make of the text of a .proto file, with a way to encode its messages. */
export type Compiled = Readonly<{
  descriptorSet: Buffer;
  encode(type: string, value: object): Buffer;
}>;

/** Compiles a proto3 file. The well-known types that it uses are the caller's to import and name. */
export function compileProto(source: string): Compiled {
  const { root } = protobuf.parse(source, { keepCase: true });
  for (const name of ['timestamp', 'duration', 'wrappers', 'struct', 'any', 'field_mask']) {
    const file = protobuf.common.get(`google/protobuf/${name}.proto`);
    if (file !== null && file.nested !== undefined) root.addJSON(file.nested);
  }
  root.resolveAll();
  const set = (root as unknown as { toDescriptor(syntax: string): protobuf.Message }).toDescriptor('proto3');
  return {
    descriptorSet: Buffer.from(set.$type.encode(set).finish()),
    encode(type, value) {
      const message = root.lookupType(type);
      return Buffer.from(message.encode(message.fromObject(value)).finish());
    },
  };
}
