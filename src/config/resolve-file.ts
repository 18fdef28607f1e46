import { dirname, isAbsolute, join } from 'node:path';

/** A file name of the configuration as it is opened; one that is not given stays so. */
export type ResolveFile = {
  (file: string): string;
  (file: string | undefined): string | undefined;
};

/** Relative names count from the folder of the config file, and from where the program was started when there is none. */
export function createFileResolver(configPath: string | undefined): ResolveFile {
  const folder = configPath === undefined ? undefined : dirname(configPath);
  function resolve(file: string): string;
  function resolve(file: string | undefined): string | undefined;
  function resolve(file: string | undefined): string | undefined {
    return file === undefined || folder === undefined || isAbsolute(file) ? file : join(folder, file);
  }
  return resolve;
}
