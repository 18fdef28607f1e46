import type { Agent } from 'node:http';
import type { Duplex } from 'node:stream';

/** The same agent, which now tells when a connection ends that it keeps for the next exchange. */
export function watchIdle<T extends Agent>(agent: T, onIdleEnd: (() => void) | undefined): T {
  if (onIdleEnd === undefined) return agent;
  const keep = agent.keepSocketAlive.bind(agent);
  const reuse = agent.reuseSocket.bind(agent);
  // Its declaration says void, its documentation that it tells whether the socket is kept.
  agent.keepSocketAlive = (socket: Duplex): boolean => {
    const kept = keep(socket) as unknown as boolean;
    if (kept) socket.once('close', onIdleEnd);
    return kept;
  };
  agent.reuseSocket = (socket, request) => {
    socket.removeListener('close', onIdleEnd);
    reuse(socket, request);
  };
  return agent;
}
