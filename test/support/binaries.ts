import { join } from 'node:path';
import process from 'node:process';
import { pathDirectories, requireExecutable } from '../../src/stack/executables.ts';

const cache = join(import.meta.dirname, '../../.cache/bin');

/** The real Envoy. A missing one fails the test that asks for it: it is never skipped. */
export function envoyPath(): Promise<string> {
  return find('envoy');
}

/** The real OPA. A missing one fails the test that asks for it: it is never skipped. */
export function opaPath(): Promise<string> {
  return find('opa');
}

function find(name: string): Promise<string> {
  const directories = [cache, ...pathDirectories(process.env.PATH)];
  return requireExecutable(name, directories, 'run `npm run binaries`');
}
