import type { DeltaRequest } from './requests.ts';
import { answerVersion, type Resource, type ResourceView } from './resources.ts';
import {
  initialStreamState,
  isUsable,
  type Note,
  namesOf,
  newlyReported,
  nextNonce,
  noteOfReply,
  rejection,
  replyOf,
  type SentAnswer,
  type Step,
  type StreamEvent,
  type StreamSettings,
  type StreamState,
  unansweredNote,
  viewFor,
} from './stream.ts';
import { changeNames, type Subscription, wildcard } from './subscription.ts';

/** What a client knows of one name. */
type Told =
  /** It was sent this version, accepted or not; `nonce` until it has replied to the answer with it. */
  | Readonly<{ kind: 'sent'; version: string; nonce: string | undefined }>
  /** It was told that there is no such resource. */
  | Readonly<{ kind: 'removed' }>;

/** A delta stream. */
export type DeltaState = StreamState &
  Readonly<{
    told: ReadonlyMap<string, Told>;
    /** Names that have to be spoken of in the next answer whatever the client was told before. */
    owed: ReadonlySet<string>;
    /** Answers without a reply yet, oldest first; bounded, the oldest is given up. */
    outstanding: readonly SentAnswer[];
  }>;

/** An answer: what has changed and what is no more. Never both empty, and no name in it twice. */
export type DeltaAnswer = Readonly<{
  version: string;
  nonce: string;
  resources: readonly Resource[];
  removed: readonly string[];
}>;

const maxOutstanding = 32;

export function initialDeltaState(streamId: string, settings: StreamSettings): DeltaState {
  return Object.freeze({
    ...initialStreamState(streamId, settings),
    told: new Map(),
    owed: new Set<string>(),
    outstanding: [],
  });
}

/** Takes a delta stream one event further (xDS, "Incremental xDS"). */
export function stepDelta(
  state: DeltaState,
  event: StreamEvent<DeltaRequest>,
): Step<DeltaState, DeltaAnswer> {
  if (event.kind === 'snapshot') return answer(state, event, []);
  const { request } = event;
  const subscription = changeNames(state.subscription, request, state.settings.maxNames);
  const replied = takeReply(state, request);
  const first = state.subscription === undefined;
  const next: DeltaState = {
    ...replied.state,
    node: request.node ?? state.node,
    subscription,
    told: new Map(
      [...(first ? heldFromBefore(request) : replied.state.told)].filter(([name]) =>
        covers(subscription, name),
      ),
    ),
    owed: first ? state.owed : new Set(owedAfter(replied.state, subscription, event)),
  };
  return answer(next, event, replied.notes);
}

function covers(subscription: Subscription, name: string): boolean {
  return subscription.everything || subscription.names.has(name);
}

/** What a first request says its client still holds from an earlier stream. */
function heldFromBefore({ initialVersions }: DeltaRequest): ReadonlyMap<string, Told> {
  return new Map(
    [...initialVersions].map(([name, version]) => [name, { kind: 'sent', version, nonce: undefined }]),
  );
}

/** The names that the client wants to hear of even if nothing has changed. */
function owedAfter(
  state: DeltaState,
  subscription: Subscription,
  { request, catalog }: Extract<StreamEvent<DeltaRequest>, { kind: 'request' }>,
): readonly string[] {
  const before = [...state.owed].filter((name) => subscription.names.has(name) || state.told.has(name));
  // xDS: a name in the subscribe list is answered even when the server believes that the client has it.
  const again = request.subscribe.filter((name) => subscription.names.has(name));
  const all = request.subscribe.includes(wildcard) ? state.told.keys() : [];
  // xDS: who lets go of a name but still has the wildcard wants to hear what the wildcard says of it.
  const released = catalog.ready
    ? request.unsubscribe.filter((name) => state.subscription?.names.has(name))
    : [];
  return [...before, ...again, ...all, ...released].filter((name) => covers(subscription, name));
}

/**
 * Takes the reply to one of the outstanding answers. A nonce that is none of theirs is stale: there is nothing to accept
 * or refuse then, but the changes of subscription in the request count (xDS). An empty one is no reply at all.
 */
function takeReply(
  state: DeltaState,
  { nonce, refusal }: DeltaRequest,
): Readonly<{ state: DeltaState; notes: readonly Note[] }> {
  // A first request's nonce belongs to an earlier stream.
  if (nonce === '' || state.subscription === undefined) return { state, notes: [] };
  const sent = state.outstanding.find((answer) => answer.nonce === nonce);
  if (sent === undefined) return { state, notes: [{ kind: 'stale_nonce', nonce }] };
  return {
    state: {
      ...state,
      outstanding: state.outstanding.filter((answer) => answer !== sent),
      last: state.last?.nonce === nonce ? { ...state.last, reply: replyOf(refusal) } : state.last,
      told: new Map(
        [...state.told].map(([name, told]) => [
          name,
          told.kind === 'sent' && told.nonce === nonce ? { ...told, nonce: undefined } : told,
        ]),
      ),
    },
    notes: [noteOfReply(sent, refusal)],
  };
}

function answer(
  state: DeltaState,
  { catalog, now }: Pick<StreamEvent<DeltaRequest>, 'catalog' | 'now'>,
  notes: readonly Note[],
): Step<DeltaState, DeltaAnswer> {
  const { subscription } = state;
  if (subscription === undefined || !catalog.ready) return { state, notes };
  const view = viewFor(state, catalog);
  const nonce = nextNonce(state);
  const resources: Resource[] = [];
  const removed: string[] = [];
  const missing: string[] = [];
  const told = new Map(state.told);

  for (const name of candidates(view, subscription, state)) {
    const named = subscription.names.has(name);
    const owed = state.owed.has(name);
    const before = state.told.get(name);
    const heldVersion = before?.kind === 'sent' && !owed ? before.version : undefined;
    const resource = lookUp(view, name, named, heldVersion, now);
    if (resource === undefined && named) missing.push(name);
    const say = whatToSay(resource, before, { named, owed });
    if (say.kind === 'resource') {
      resources.push(say.resource);
      told.set(name, { kind: 'sent', version: say.resource.version, nonce });
    } else if (say.kind === 'removed') {
      removed.push(name);
      if (named) told.set(name, { kind: 'removed' });
      else told.delete(name);
    }
  }

  const unanswered = missing.map((name) => unansweredNote(view, name));
  const { reported, notes: fresh } = newlyReported(state, unanswered);
  const allNotes = [...notes, ...fresh];
  const fail = rejection(state.settings, unanswered);
  const settled = { ...state, reported, owed: new Set<string>() };
  if (fail !== undefined) return { state: settled, notes: allNotes, fail };
  if (resources.length === 0 && removed.length === 0) return { state: settled, notes: allNotes };
  const names = [...namesOf(resources), ...removed.map((name) => ({ name, kind: view.kindOf(name) }))];
  const version = answerVersion(resources);
  const sent: SentAnswer = { nonce, version, names, reply: { kind: 'pending' } };
  return {
    state: {
      ...settled,
      told,
      answers: state.answers + 1,
      last: sent,
      outstanding: [...state.outstanding, sent].slice(-maxOutstanding),
    },
    send: { version, nonce, resources, removed },
    notes: allNotes,
  };
}

/** The names that may have to be spoken of, each once, in a stable order. */
function candidates(view: ResourceView, subscription: Subscription, state: DeltaState): readonly string[] {
  const implied = subscription.everything ? view.everything().map(({ name }) => name) : [];
  return [...new Set([...subscription.names, ...implied, ...state.told.keys(), ...state.owed])].sort();
}

/** The resource that the client may have under that name. */
function lookUp(
  view: ResourceView,
  name: string,
  named: boolean,
  heldVersion: string | undefined,
  now: number,
): Resource | undefined {
  const resource = view.find(name);
  if (resource === undefined || !isUsable(resource, heldVersion, now)) return undefined;
  // The wildcard covers SPIFFE IDs and trust domains; aliases have to be asked for by name.
  const covered = resource.kind === 'spiffe_id' || resource.kind === 'trust_domain';
  return named || covered ? resource : undefined;
}

type Say = Readonly<{ kind: 'resource'; resource: Resource } | { kind: 'removed' | 'nothing' }>;

const nothing: Say = Object.freeze({ kind: 'nothing' });
const removal: Say = Object.freeze({ kind: 'removed' });

/**
 * What a client that was told `before` has yet to hear of a name. Trust that has gone takes two answers: first the
 * resource that nothing satisfies, because Envoy keeps its old trust upon a removal; the removal once the client has
 * replied to it.
 */
function whatToSay(
  resource: Resource | undefined,
  before: Told | undefined,
  { named, owed }: Readonly<{ named: boolean; owed: boolean }>,
): Say {
  const current = before?.kind === 'sent' && before.version === resource?.version;
  if (resource !== undefined && !resource.gone) {
    return current && !owed ? nothing : { kind: 'resource', resource };
  }
  if (resource !== undefined && before?.kind === 'sent') {
    if (!current) return { kind: 'resource', resource };
    if (before.nonce === undefined) return removal;
    return owed ? { kind: 'resource', resource } : nothing;
  }
  if (before?.kind === 'removed') return owed ? removal : nothing;
  return before !== undefined || named || owed ? removal : nothing;
}
