// The yardstick: a grpc-js server for the same service, loaded from the same protos, whose handler does nothing.
import { fileURLToPath } from 'node:url';
import { type GrpcObject, loadPackageDefinition, Server, ServerCredentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const socketPath = process.argv[2];
if (socketPath === undefined) throw new Error('usage: noop-server SOCKET');

const protoRoot = fileURLToPath(new URL('../../proto/', import.meta.url));
const definition = loadSync('envoy/service/auth/v3/external_auth.proto', { includeDirs: [protoRoot] });
const service = ['envoy', 'service', 'auth', 'v3', 'Authorization'].reduce<GrpcObject>(
  (node, name) => node[name] as GrpcObject,
  loadPackageDefinition(definition),
) as unknown as { service: Parameters<Server['addService']>[0] };

const server = new Server();
server.addService(service.service, {
  Check: (_call: unknown, callback: (error: null, response: object) => void) => callback(null, {}),
});
server.bindAsync(`unix:${socketPath}`, ServerCredentials.createInsecure(), (error) => {
  if (error !== null) throw error;
  process.stdout.write('ready\n');
});
