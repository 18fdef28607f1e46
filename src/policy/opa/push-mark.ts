import { UnavailableError } from '../../runtime/errors.ts';
import { parseJson } from '../../runtime/parse-json.ts';
import { isJsonObject } from '../../spiffe/json.ts';
import { type OpaApi, refusalText } from './opa-api.ts';
import { digestOf } from './push-item.ts';

/** What there is in OPA: the mark of a revision or not, and a digest of the bundles that it has itself. */
export type Sight = Readonly<{ marked: boolean; bundles: string }>;

/** Tells OPA which set of files it has: a mark that is gone tells of an OPA that was started anew. */
export interface PushMark {
  /** Rejects with UnavailableError when OPA does not take it. */
  put(revision: string, signal: AbortSignal): Promise<void>;
  /** Rejects with UnavailableError when OPA does not say. */
  look(revision: string): Promise<Sight>;
}

const marks = '/v1/data/svidecar/push';
const timeoutMs = 2_000;
const never = new AbortController().signal;

export function createPushMark(api: OpaApi): PushMark {
  return Object.freeze<PushMark>({
    async put(revision, signal) {
      const request = {
        method: 'PUT',
        path: `${marks}/${revision}`,
        body: 'true',
        type: 'application/json',
        timeoutMs,
      } as const;
      const { status } = await api.send(request, signal);
      if (status !== 204) throw new UnavailableError(`OPA answered HTTP status ${status} to ${request.path}`);
    },
    async look(revision) {
      const path = `${marks}/${revision}?provenance=true`;
      const response = await api.send({ method: 'GET', path, timeoutMs }, never);
      if (response.status !== 200) throw new UnavailableError(refusalText(response));
      return sightOf(response.body);
    },
  });
}

function sightOf(body: Buffer): Sight {
  try {
    const answer = parseJson(body.toString('utf8'));
    if (!isJsonObject(answer)) return { marked: false, bundles: '' };
    const { result, provenance } = answer;
    const { bundles, revision } = isJsonObject(provenance) ? provenance : {};
    return { marked: result === true, bundles: digestOf(JSON.stringify([bundles, revision])) };
  } catch {
    return { marked: false, bundles: '' };
  }
}
