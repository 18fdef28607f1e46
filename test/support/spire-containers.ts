import process from 'node:process';
import { GenericContainer, getContainerRuntimeClient } from 'testcontainers';
import type { SpireHost } from './spire-host.ts';

/**
 * SPIRE's images as containers with the host's network and process IDs: by these its unix attestor knows a workload
 * outside. Undefined where no container runtime answers, and off Linux, where containers are not that close.
 */
export async function spireInContainers(version: string): Promise<SpireHost | undefined> {
  if (process.platform !== 'linux' || !(await runtimeAnswers())) return undefined;
  return {
    async start(t, { program, args, directory }) {
      const binary = `/opt/spire/bin/${program}`;
      const container = await new HostPidContainer(`ghcr.io/spiffe/${program}:${version}`)
        .withNetworkMode('host')
        .withUser(`${process.getuid?.()}:${process.getgid?.()}`)
        .withBindMounts([{ source: directory, target: directory }])
        .withEntrypoint([binary])
        .withCommand([...args])
        .start();
      t.after(() => container.stop());
      return {
        async command(...command) {
          const { exitCode, output, stdout } = await container.exec([binary, ...command]);
          if (exitCode !== 0) throw new Error(`${program} ${command.join(' ')} failed:\n${output}`);
          return stdout;
        },
        restart: () => container.restart(),
      };
    },
  };
}

function runtimeAnswers(): Promise<boolean> {
  return getContainerRuntimeClient().then(
    () => true,
    () => false,
  );
}

/** A subclass because testcontainers has no other way to `docker run --pid host`. */
class HostPidContainer extends GenericContainer {
  override start(): ReturnType<GenericContainer['start']> {
    this.hostConfig.PidMode = 'host';
    return super.start();
  }
}
