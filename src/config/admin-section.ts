import { z } from 'zod';
import type { HostPort } from '../runtime/socket-address.ts';
import { hostPort } from './fields.ts';

/** What people and probes ask over HTTP. */
export const admin = z.strictObject({
  listen: hostPort().prefault('127.0.0.1:9902').describe('The admin HTTP server.'),
  allow_jwt_svid: z
    .boolean()
    .default(false)
    .describe('Gives JWT-SVIDs of the default identity to every client of a loopback admin server.'),
  probe_listen: hostPort()
    .optional()
    .describe('A second server with /live, /ready, /health and /metrics only, for kubelets.'),
});

export type AdminConfig = Readonly<{
  listen: HostPort;
  allowJwtSvid: boolean;
  probeListen: HostPort | undefined;
}>;

export function buildAdmin(options: z.output<typeof admin>): AdminConfig {
  const { listen, allow_jwt_svid: allowJwtSvid, probe_listen: probeListen } = options;
  return { listen, allowJwtSvid, probeListen };
}
