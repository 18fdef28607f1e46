import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Config } from '../config/config.ts';
import { createHealth } from '../grpc/health.ts';
import { createReflection } from '../grpc/reflection.ts';
import { type ConnectionFront, createGrpcServer, type GrpcServer } from '../grpc/server.ts';
import type { Service } from '../grpc/service.ts';
import type { Logger } from '../runtime/log.ts';
import { formatSocketAddress } from '../runtime/socket-address.ts';
import { createWorkloadApiService } from '../workload/dev-server.ts';
import type { IdentitySource } from '../workload/identity-source.ts';

/** The gRPC servers of the program. */
export type Servers = Readonly<{
  /** Binds every socket; rejects with the reason when one is taken. */
  listen(): Promise<void>;
  /** What the health service says. */
  setServing(serving: boolean): void;
  /** GOAWAY, then `graceMs` milliseconds for calls in progress. */
  shutdown(graceMs: number): Promise<void>;
}>;

type Door = Readonly<{ server: GrpcServer; listen(server: GrpcServer): Promise<unknown> }>;

/**
 * One server for `listen` with SDS, ext_authz and health; with `ext_authz.listen` another for ext_authz and health; with
 * `identity.dev.serve_workload_api` a third for the Workload API.
 */
export function createServers(
  config: Config,
  deps: {
    sds: Service | undefined;
    extAuthz: Service | undefined;
    /** TLS of `ext_authz.listen`. */
    mtls?: ConnectionFront | undefined;
    source: IdentitySource;
    now: () => number;
    log: Logger;
  },
): Servers {
  const { sds, extAuthz, mtls, source, now, log } = deps;
  const { listen, listenMode, identity } = config;
  const apart = config.extAuthz.listen;
  const health = createHealth([sds, extAuthz].flatMap((service) => service?.name ?? []));
  const { maxMessageBytes, maxConcurrent, reflection } = config.extAuthz.limits;
  // Refused by HTTP/2, a Check would be an error for its Envoy, which may let it pass: it has to get as far as its 503.
  const maxStreamsPerConnection = Math.max(4096, 2 * maxConcurrent);
  // A development machine's sockets may lie right below /tmp.
  const allowStickyParent = identity.source === 'dev';
  const services = (...candidates: readonly (Service | undefined)[]): readonly Service[] => {
    const served = candidates.filter((service) => service !== undefined);
    if (!reflection) return served;
    return [...served, ...createReflection([...served, health.service].map(({ name }) => name))];
  };
  if (sds !== undefined && listen.kind === 'tcp') {
    log.warn(
      { address: formatSocketAddress(listen) },
      'SDS on tcp hands private keys to every user of this machine: prefer a unix socket',
    );
  }

  const doors: Door[] = [
    {
      server: createGrpcServer({
        services: services(sds, apart === undefined ? extAuthz : undefined),
        health,
        maxMessageBytes,
        maxStreamsPerConnection,
        log,
      }),
      listen: (server) => server.listen(listen, listenMode, { allowStickyParent }),
    },
  ];
  if (apart !== undefined && extAuthz !== undefined) {
    doors.push({
      server: createGrpcServer({
        services: services(extAuthz),
        health,
        maxMessageBytes,
        maxStreamsPerConnection,
        log,
      }),
      listen: (server) =>
        server.listen(apart, listenMode, {
          allowStickyParent,
          ...(mtls === undefined ? {} : { front: mtls }),
        }),
    });
  }
  const workloadApi = identity.dev?.serveWorkloadApi;
  if (workloadApi !== undefined) {
    if (workloadApi.kind === 'tcp') {
      log.warn(
        { address: formatSocketAddress(workloadApi) },
        'the dev Workload API on tcp hands identities to every user of this machine: prefer a unix socket',
      );
    }
    doors.push({
      server: createGrpcServer({ services: [createWorkloadApiService(source, now)], log }),
      async listen(server) {
        if (workloadApi.kind === 'unix') {
          await mkdir(dirname(workloadApi.path), { mode: 0o700, recursive: true });
        }
        await server.listen(workloadApi, 0o600, { allowStickyParent });
      },
    });
  }

  return {
    async listen() {
      for (const { server, listen: bind } of doors) await bind(server);
    },
    setServing: (serving) => health.setServing(serving),
    async shutdown(graceMs) {
      await Promise.all(doors.map(({ server }) => server.shutdown(graceMs)));
    },
  };
}
