import type { Config } from '../config/config.ts';
import type { OutputState } from '../outputs/output-writer.ts';
import { createOutputWriter, type OutputMeter } from '../outputs/output-writer.ts';
import type { Kill } from '../outputs/reload-signal.ts';
import type { Logger } from '../runtime/log.ts';
import type { Task } from '../runtime/tasks.ts';
import type { JwtSvidCache } from '../tokens/jwt-svid-cache.ts';
import { defaultSvid, type SnapshotReader } from '../trust/snapshot.ts';
import type { Clock } from './clock.ts';

/** The files for programs that cannot speak SDS. */
export type Outputs = Readonly<{ tasks: readonly Task[]; states(): readonly OutputState[] }>;

export function createOutputs(
  config: Config,
  deps: {
    snapshots: SnapshotReader;
    tokens: Pick<JwtSvidCache, 'watch'>;
    kill: Kill;
    clock: Clock;
    log: Logger;
    /** One for each entry of `outputs`, by its index. */
    meterOf: (index: number) => OutputMeter;
  },
): Outputs {
  const { snapshots, tokens, kill, clock, log, meterOf } = deps;
  const { now, sleep, random } = clock;
  const writers = config.outputs.map((spec, index) =>
    createOutputWriter({
      spec,
      snapshots,
      defaultSvid: (snapshot) => defaultSvid(snapshot, config.sds.defaultSvidHint),
      tokens,
      kill,
      now,
      sleep,
      random,
      log,
      meter: meterOf(index),
    }),
  );
  return {
    tasks: writers.map((writer) => (signal: AbortSignal) => writer.run(signal)),
    states: () => writers.map((writer) => writer.state()),
  };
}
