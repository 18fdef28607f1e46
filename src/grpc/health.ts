import { aborted } from '../runtime/abort.ts';
import { createLatest } from '../runtime/latest.ts';
import { messageCodec } from './protos.ts';
import type { Method, Service } from './service.ts';
import { Status, StatusError } from './status.ts';

/** What grpc.health.v1 says of this process, under the empty name and under that of each service. */
export interface Health {
  /** NOT_SERVING until told otherwise; watchers are told of every change. */
  setServing(serving: boolean): void;
  /** For createGrpcServer. */
  readonly service: Service;
}

const checkRequest = messageCodec('grpc.health.v1.HealthCheckRequest');
const checkResponse = messageCodec('grpc.health.v1.HealthCheckResponse');
const listRequest = messageCodec('grpc.health.v1.HealthListRequest');
const listResponse = messageCodec('grpc.health.v1.HealthListResponse');

type CheckRequest = ReturnType<typeof checkRequest.decode>;

/** https://github.com/grpc/grpc/blob/master/doc/health-checking.md */
export function createHealth(serviceNames: readonly string[]): Health {
  const names = ['', ...serviceNames];
  const serving = createLatest(false);
  const told = (isServing: boolean) => ({ status: isServing ? 'SERVING' : 'NOT_SERVING' }) as const;

  const check: Method = {
    kind: 'unary',
    decode: checkRequest.decode,
    encode: checkResponse.encode,
    async handle({ service }: CheckRequest) {
      if (names.includes(service)) return told(serving.current());
      throw new StatusError(Status.NOT_FOUND, 'no service of that name is here');
    },
  };
  const watch: Method = {
    kind: 'server_stream',
    decode: checkRequest.decode,
    encode: checkResponse.encode,
    async *handle({ service }: CheckRequest, { signal }) {
      if (!names.includes(service)) {
        yield { status: 'SERVICE_UNKNOWN' };
        // The call stays, as the standard wants it, though no service of ours comes later.
        await aborted(signal);
        return;
      }
      for await (const isServing of serving.changes(signal)) yield told(isServing);
    },
  };
  const list: Method = {
    kind: 'unary',
    decode: listRequest.decode,
    encode: listResponse.encode,
    handle: async () => ({
      statuses: Object.fromEntries(names.map((name) => [name, told(serving.current())])),
    }),
  };
  return Object.freeze({
    setServing: (isServing: boolean) => serving.set(isServing),
    service: Object.freeze({
      name: 'grpc.health.v1.Health',
      methods: Object.freeze({ Check: check, Watch: watch, List: list }),
    }),
  });
}
