import { AppError } from '../runtime/errors.ts';
import type { NameKind } from './names.ts';
import { type EnvoyNode, usesSpiffeValidator } from './node.ts';
import type { Catalog, Resource, ResourceView } from './resources.ts';
import type { Subscription } from './subscription.ts';

/** What happens to a stream: a request arrives, or the snapshot has changed. */
export type StreamEvent<R> =
  | Readonly<{ kind: 'request'; request: R; catalog: Catalog; now: number }>
  | Readonly<{ kind: 'snapshot'; catalog: Catalog; now: number }>;

/** What an event leads to. With `fail` the stream ends with that error, and `send` is absent. */
export type Step<S, A> = Readonly<{
  state: S;
  send?: A | undefined;
  fail?: AppError | undefined;
  notes: readonly Note[];
}>;

/** Something worth a log line and a count. */
export type Note =
  | Readonly<{ kind: 'ack'; version: string; names: readonly NamedKind[] }>
  | Readonly<{ kind: 'nack'; version: string; names: readonly NamedKind[]; message: string }>
  | Readonly<{ kind: 'stale_nonce'; nonce: string }>
  | UnansweredNote;

/** A subscribed name is not answered now, and why. */
export type UnansweredNote = Readonly<{
  kind: 'unanswered';
  name: string;
  nameKind: NameKind;
  reason: Unanswered;
}>;

export type NamedKind = Readonly<{ name: string; kind: NameKind }>;

export type Unanswered = 'unknown' | 'expired' | 'not_issued' | 'needs_spiffe_validator';

/** Settings that every stream of a service shares. */
export type StreamSettings = Readonly<{
  spiffeValidator: boolean;
  unknownNames: 'wait' | 'reject';
  maxNames: number;
}>;

/** What the client made of an answer. */
export type Reply = Readonly<{ kind: 'pending' | 'acked' }> | Readonly<{ kind: 'nacked'; message: string }>;

/** An answer that was sent, kept to understand the reply to it. */
export type SentAnswer = Readonly<{
  nonce: string;
  version: string;
  names: readonly NamedKind[];
  reply: Reply;
}>;

/** What both protocols remember of a stream. Nothing in here is secret. */
export type StreamState = Readonly<{
  /** Unlike that of any other stream, so that no two answers of any streams share a nonce. */
  streamId: string;
  settings: StreamSettings;
  node: EnvoyNode | undefined;
  /** Undefined until the first request. */
  subscription: Subscription | undefined;
  /** How many answers were sent. */
  answers: number;
  last: SentAnswer | undefined;
  /** Names reported as unanswered: each is told once. */
  reported: ReadonlySet<string>;
}>;

export function initialStreamState(streamId: string, settings: StreamSettings): StreamState {
  return {
    streamId,
    settings,
    node: undefined,
    subscription: undefined,
    answers: 0,
    last: undefined,
    reported: new Set(),
  };
}

/** The resources as this stream's Envoy is to see them; its Node is only guaranteed in the first request. */
export function viewFor(state: StreamState, catalog: Catalog): ResourceView {
  return catalog.view(usesSpiffeValidator(state.node, state.settings.spiffeValidator));
}

export function nextNonce(state: StreamState): string {
  return `${state.streamId}.${state.answers + 1}`;
}

export function namesOf(resources: readonly Resource[]): readonly NamedKind[] {
  return resources.map(({ name, kind }) => ({ name, kind }));
}

/** The note on a client's reply to an answer. */
export function noteOfReply(answer: SentAnswer, refusal: string | undefined): Note {
  const { version, names } = answer;
  return refusal === undefined
    ? { kind: 'ack', version, names }
    : { kind: 'nack', version, names, message: refusal };
}

export function replyOf(refusal: string | undefined): Reply {
  return refusal === undefined ? { kind: 'acked' } : { kind: 'nacked', message: refusal };
}

/**
 * True for a resource that may go to a client holding `heldVersion` of it. An SVID that has expired, because its source
 * is away, is not given to a newcomer, who would present it in vain; one who holds it has nothing better. An expired
 * token goes to nobody.
 */
export function isUsable(resource: Resource, heldVersion: string | undefined, now: number): boolean {
  if (resource.kind === 'jwt_svid') return resource.expiresAt > now;
  return resource.expiresAt >= now || resource.version === heldVersion;
}

/** Sorts out why a subscribed name is without an answer. */
export function unansweredNote(view: ResourceView, name: string): UnansweredNote {
  const nameKind = view.kindOf(name);
  return { kind: 'unanswered', name, nameKind, reason: reasonOf(view, name, nameKind) };
}

function reasonOf(view: ResourceView, name: string, kind: NameKind): Unanswered {
  if (view.find(name) !== undefined) return 'expired';
  if (kind === 'jwt_svid') return 'not_issued';
  return kind === 'all_bundles' ? 'needs_spiffe_validator' : 'unknown';
}

/** Those notes that were not given before, and the set to remember; bounded by `maxNames`. */
export function newlyReported(
  state: StreamState,
  notes: readonly UnansweredNote[],
): Readonly<{ notes: readonly Note[]; reported: ReadonlySet<string> }> {
  const room = state.settings.maxNames - state.reported.size;
  const fresh = notes.filter(({ name }) => !state.reported.has(name)).slice(0, Math.max(0, room));
  if (fresh.length === 0) return { notes: [], reported: state.reported };
  return { notes: fresh, reported: new Set([...state.reported, ...fresh.map(({ name }) => name)]) };
}

const maxNamesInError = 16;

/**
 * What ends a stream that asks for names nobody grants, when the settings say so; an SVID that waits for its renewal or
 * its first issue is no reason. The text is SPIRE's: existing tools look for it.
 */
export function rejection(
  settings: StreamSettings,
  unanswered: readonly UnansweredNote[],
): AppError | undefined {
  const refused = unanswered
    .filter(({ reason }) => reason !== 'expired' && reason !== 'not_issued')
    .map(({ name }) => name);
  if (settings.unknownNames === 'wait' || refused.length === 0) return undefined;
  const shown = refused
    .sort()
    .slice(0, maxNamesInError)
    .map((name) => JSON.stringify(name));
  const more = refused.length > shown.length ? ` and ${refused.length - shown.length} more` : '';
  return new AppError(
    'invalid_argument',
    `workload is not authorized for the requested identities [${shown.join(' ')}]${more}`,
  );
}
