import type { HttpResponse } from '../../http/client.ts';
import { type AppError, toAppError, UnavailableError } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/log.ts';
import { parseJson } from '../../runtime/parse-json.ts';
import { isJsonObject, type JsonObject } from '../../spiffe/json.ts';
import { encodeInput } from '../input-text.ts';
import {
  type BundleRevisions,
  type EngineFailure,
  type Evaluation,
  failure,
  type Origin,
  type PolicyEngine,
} from '../policy-engine.ts';
import { encodeOpaPath, type OpaApi, refusalText, remedyFor } from './opa-api.ts';

export type OpaRestOptions = Readonly<{
  api: OpaApi;
  /** Bound on one query; the Check's own signal is usually sooner. */
  timeoutMs: number;
  /** OPA is asked what its decisions rest on: the revisions of its bundles. */
  provenance?: boolean | undefined;
  log: Logger;
}>;

export interface OpaRestEngine extends PolicyEngine {
  /** Resolves when OPA says that it is healthy; rejects with an AppError that says why not. */
  probe(signal: AbortSignal): Promise<void>;
}

/** What an OPA says of its bundles beyond these is left out of records. */
const maxBundles = 64;
const maxNameLength = 256;

/** A remote OPA, asked over its Data API (POST /v1/data). `ready()` is always true: an OPA that is away fails each Check. */
export function createOpaRestEngine(options: OpaRestOptions): OpaRestEngine {
  const { api, timeoutMs, provenance = false, log } = options;
  const { url } = api;
  const query = provenance ? '?provenance=true' : '';
  let reachable = true;

  function note(failed?: AppError): void {
    if ((failed === undefined) === reachable) return;
    reachable = failed === undefined;
    if (failed === undefined) log.info({ url }, 'OPA answers again');
    else log.warn({ url, error: failed.message }, `OPA cannot be reached: ${remedyFor(failed)}`);
  }

  async function evaluate(decision: string, input: unknown, signal: AbortSignal): Promise<Evaluation> {
    try {
      const request = {
        method: 'POST',
        path: `/v1/data/${encodeOpaPath(decision)}${query}`,
        type: 'application/json',
        body: `{"input":${encodeInput(input)}}`,
        timeoutMs,
      } as const;
      // A query changes nothing, so it may be sent again.
      const response = await api.send(request, signal);
      note();
      return readAnswer(response);
    } catch (thrown) {
      const error = toAppError(thrown);
      const reason = failureOf(error);
      if (reason === 'engine_unavailable') note(error);
      return failure(reason, error.message);
    }
  }

  return Object.freeze({
    name: 'opa',
    evaluate,
    ready: () => true,
    revision: () => '',
    async probe(signal: AbortSignal) {
      const { status } = await api
        .send({ method: 'GET', path: '/health', timeoutMs }, signal)
        .catch((error: unknown) => {
          throw withRemedy(toAppError(error));
        });
      if (status !== 200) throw new UnavailableError(`OPA at ${url} is not healthy (HTTP status ${status})`);
    },
  });
}

function withRemedy(error: AppError): AppError {
  if (failureOf(error) !== 'engine_unavailable') return error;
  return new UnavailableError(`OPA cannot be reached (${error.message}): ${remedyFor(error)}`, {
    cause: error,
  });
}

function readAnswer(response: HttpResponse): Evaluation {
  if (response.status === 503 || response.status === 429) {
    return failure('engine_unavailable', refusalText(response));
  }
  if (response.status !== 200) return failure('engine_error', refusalText(response));
  let answer: unknown;
  try {
    answer = parseJson(response.body.toString('utf8'));
  } catch {
    return failure('engine_error', 'answer of OPA is not JSON');
  }
  if (!isJsonObject(answer)) return failure('engine_error', 'answer of OPA is not a JSON object');
  const origin = originOf(answer);
  if (!Object.hasOwn(answer, 'result')) return Object.freeze({ kind: 'undefined', ...origin });
  return Object.freeze({ kind: 'result', value: answer['result'], ...origin });
}

/** OPA's own id of the decision, which it has when it logs decisions itself, and the revisions of its bundles. */
function originOf(answer: JsonObject): Origin {
  const { decision_id: id, provenance } = answer;
  const bundles = isJsonObject(provenance) ? bundlesOf(provenance) : undefined;
  return {
    ...(typeof id === 'string' && id !== '' ? { engineDecisionId: id.slice(0, maxNameLength) } : {}),
    ...(bundles === undefined ? {} : { bundles }),
  };
}

function bundlesOf({ bundles, revision }: JsonObject): BundleRevisions | undefined {
  // OPA's old form for a single bundle without a name.
  if (typeof revision === 'string' && revision !== '') return { opa: named(revision) };
  if (!isJsonObject(bundles)) return undefined;
  const entries = Object.entries(bundles).slice(0, maxBundles);
  return Object.freeze(
    Object.fromEntries(
      entries.map(([name, bundle]) => [
        name.slice(0, maxNameLength),
        named(isJsonObject(bundle) ? bundle['revision'] : undefined),
      ]),
    ),
  );
}

function named(revision: unknown): Readonly<{ revision: string }> {
  return Object.freeze({ revision: typeof revision === 'string' ? revision.slice(0, maxNameLength) : '' });
}

function failureOf(error: AppError): EngineFailure {
  if (error.code === 'timeout' || error.code === 'aborted') return 'engine_timeout';
  // A server that is not who it has to be is no OPA of ours.
  if (error.code === 'unavailable' || error.code === 'permission_denied') return 'engine_unavailable';
  return 'engine_error';
}
