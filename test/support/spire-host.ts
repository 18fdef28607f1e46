import type { TestContext } from 'node:test';

/** One of SPIRE's two programs, running. */
export interface SpireProgram {
  /** Runs one of its commands to the end and gives what it printed; a command that fails rejects. */
  command(...args: readonly string[]): Promise<string>;
  /** Stops it and starts it again with the same arguments and files. */
  restart(): Promise<void>;
}

export type SpireProgramOptions = Readonly<{
  program: 'spire-server' | 'spire-agent';
  args: readonly string[];
  /** Holds every file that the arguments name. */
  directory: string;
}>;

/** How the two programs are run: close to this machine, whose loopback ports, processes and files they see as we do. */
export interface SpireHost {
  /** Starts one of them; it has ended when the test has. It does not wait for it to be up. */
  start(t: TestContext, options: SpireProgramOptions): Promise<SpireProgram>;
}
