import { z } from 'zod';
import { file, fileMode, fileName, name, secretFileMode } from './fields.ts';
import type { ResolveFile } from './resolve-file.ts';

/** One directory of files. */
export const output = z.strictObject({
  directory: file().describe(
    'Where the files are; made with mode 0755 when it is missing. Nobody but us and root may write to it.',
  ),
  certificate: fileName().prefault('svid.pem').describe('The X.509-SVID in PEM, leaf first.'),
  private_key: fileName().prefault('svid.key').describe('Its key in PEM, PKCS#8.'),
  bundle: fileName().prefault('bundle.pem').describe('The bundle of the own trust domain in PEM.'),
  federated: z
    .boolean()
    .default(false)
    .describe('Also writes federated/TRUST_DOMAIN.pem for each other trust domain held.'),
  mode: fileMode().prefault('0644').describe('Permission bits of certificates and bundles.'),
  secret_mode: secretFileMode().prefault('0600').describe('Permission bits of the key and of tokens.'),
  jwt: z
    .array(
      z.strictObject({
        audience: name().describe('Whom the JWT-SVID is for.'),
        file: fileName().describe('The file that holds it, and nothing else.'),
      }),
    )
    .max(100)
    .default([])
    .describe('JWT-SVIDs of the default identity, renewed in time.'),
  signal: z
    .strictObject({
      pid_file: file().describe(
        'Holds the process ID; must belong to us or root and be writable by nobody else.',
      ),
      name: z
        .enum(['SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGINT', 'SIGTERM', 'SIGQUIT'])
        .default('SIGHUP')
        .describe('What is sent to it after each new set.'),
    })
    .optional(),
});

type OutputOptions = z.output<typeof output>;
type OutputSignal = NonNullable<OutputOptions['signal']>;

/** One directory of files for programs that cannot speak SDS. */
export type OutputConfig = Readonly<{
  directory: string;
  certificate: string;
  privateKey: string;
  bundle: string;
  federated: boolean;
  mode: number;
  secretMode: number;
  jwt: readonly Readonly<{ audience: string; file: string }>[];
  signal: Readonly<{ pidFile: string; name: OutputSignal['name'] }> | undefined;
}>;

export function buildOutput(options: OutputOptions, resolve: ResolveFile): OutputConfig {
  const { directory, private_key: privateKey, secret_mode: secretMode, signal, ...same } = options;
  return {
    ...same,
    directory: resolve(directory),
    privateKey,
    secretMode,
    signal: signal && { pidFile: resolve(signal.pid_file), name: signal.name },
  };
}
