import type { PolicyState } from '../admin/status.ts';
import type { Config } from '../config/config.ts';
import { createHttpClient } from '../http/client.ts';
import { createOpaApi } from '../policy/opa/opa-api.ts';
import { createOpaPush, maxPushBytes, type OpaPush, type OpaPushMeter } from '../policy/opa/opa-push.ts';
import { createOpaRestEngine, type OpaRestEngine } from '../policy/opa/opa-rest.ts';
import { pushContentOf } from '../policy/opa/push-item.ts';
import { createPushedEngine, pushedName } from '../policy/opa/pushed-engine.ts';
import { type ConfigProblem, messageOf } from '../runtime/errors.ts';
import { createFileSet } from '../runtime/file-watch.ts';
import type { Logger } from '../runtime/log.ts';
import type { SnapshotReader } from '../trust/snapshot.ts';
import type { Clock } from './clock.ts';
import { createServerTrust } from './server-trust.ts';

/** `push` keeps the files of `policy.opa.push` in that OPA while it runs; undefined when there are none to push. */
export type ConfiguredOpa = Readonly<{
  kind: 'opa';
  engine: OpaRestEngine;
  push: OpaPush | undefined;
  /** What was pushed stands where the bundles of engine wasm do. */
  bundles: () => PolicyState['bundles'];
}>;

type OpaDeps = Readonly<{
  snapshots: Pick<SnapshotReader, 'current'>;
  /** For a command that looks at what there is and ends: it pushes nothing. */
  once?: object | undefined;
  clock: Clock;
  log: Logger;
  meter: OpaPushMeter;
}>;

/** The OPA server as configured; one with `policy.opa.spiffe_ids` is shown our default X509-SVID. */
export function createConfiguredOpa(config: Config, deps: OpaDeps): ConfiguredOpa {
  const { policy, extAuthz, decisionLog } = config;
  const { snapshots, once, clock, log, meter } = deps;
  const { url, spiffeIds } = policy.opa;
  const items = once === undefined ? policy.opa.push : [];
  const doubt = (): void => push?.doubt();
  const http = createHttpClient({
    maxSockets: extAuthz.limits.maxConcurrent,
    trust: createServerTrust(config, spiffeIds, { snapshots, now: clock.now }),
    ...(items.length === 0 ? {} : { onIdleEnd: doubt }),
  });
  const api = createOpaApi({ url, http, onBroken: doubt });
  const push =
    items.length === 0
      ? undefined
      : createOpaPush({ api, items, ...clock, now: clock.monotonicNow, log, meter });
  // What nobody writes down is not asked for.
  const provenance = once !== undefined || decisionLog.console || decisionLog.service.url !== undefined;
  const engine = createOpaRestEngine({ api, timeoutMs: policy.timeoutMs, provenance, log });
  if (push === undefined) return { kind: 'opa', engine, push, bundles: () => [] };
  const bundles = (): PolicyState['bundles'] => {
    const revision = push.revision();
    return [
      { name: pushedName, revision, digest: revision, problem: push.problem(), activatedAt: undefined },
    ];
  };
  return { kind: 'opa', engine: createPushedEngine(engine, push), push, bundles };
}

/** What is wrong with the files of `policy.opa.push`, as far as it shows without an OPA. */
export async function checkPushFiles({ policy, extAuthz }: Config): Promise<readonly ConfigProblem[]> {
  if (!extAuthz.enabled || policy.engine !== 'opa') return [];
  const { push } = policy.opa;
  const paths = push.map(({ file }) => file);
  const events = await createFileSet({ paths, maxBytes: maxPushBytes }).look();
  return push.flatMap((item, index) => {
    try {
      pushContentOf(item, events?.[index]);
      return [];
    } catch (error) {
      return [{ path: `policy.opa.push[${index}].file`, message: messageOf(error) }];
    }
  });
}
