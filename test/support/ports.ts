import { freePorts } from '../../src/stack/ports.ts';

/** A loopback TCP port on which nothing listens. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1, Math.random);
  if (port === undefined) throw new Error('no free port');
  return port;
}
