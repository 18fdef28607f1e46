import type { Server } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';

/** What grpc.health.v1 says of this process, under the empty name and under that of each service. */
export interface Health {
  /** NOT_SERVING until told otherwise; watchers are told of every change. */
  setServing(serving: boolean): void;
  /** Adds the health service to a server; for createGrpcServer. */
  attach(server: Server): void;
}

export function createHealth(serviceNames: readonly string[]): Health {
  const names = ['', ...serviceNames];
  const implementation = new HealthImplementation(
    Object.fromEntries(names.map((name) => [name, 'NOT_SERVING'])),
  );
  return Object.freeze({
    setServing(serving: boolean) {
      for (const name of names) implementation.setStatus(name, serving ? 'SERVING' : 'NOT_SERVING');
    },
    attach(server: Server) {
      implementation.addToServer(server);
    },
  });
}
