import { createServer } from 'node:net';
import { UnavailableError } from '../runtime/errors.ts';

// Below the range from which the kernel takes ports of outgoing connections, so that none of these is taken between our
// look and the bind of the program it is for.
const LOWEST = 15_000;
const HIGHEST = 29_999;
const TRIES = 200;

/** `count` different TCP ports of the loopback address on which nothing listens. */
export async function freePorts(count: number, random: () => number): Promise<readonly number[]> {
  const found = new Set<number>();
  for (let tries = 0; tries < TRIES && found.size < count; tries += 1) {
    const port = LOWEST + Math.floor(random() * (HIGHEST - LOWEST + 1));
    if (await isFree(port)) found.add(port);
  }
  if (found.size < count)
    throw new UnavailableError(`no ${count} free ports between ${LOWEST} and ${HIGHEST}`);
  return [...found];
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
