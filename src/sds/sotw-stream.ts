import type { SotwRequest } from './requests.ts';
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
  type Step,
  type StreamEvent,
  type StreamSettings,
  type StreamState,
  unansweredNote,
  viewFor,
} from './stream.ts';
import { replaceNames, type Subscription } from './subscription.ts';

/** A state-of-the-world stream. */
export type SotwState = StreamState &
  Readonly<{
    /** What the client was last sent of its subscription, accepted or not: version by name. */
    held: ReadonlyMap<string, string>;
  }>;

/** An answer: every known resource of the subscription, sorted by name. Never empty. */
export type SotwAnswer = Readonly<{ version: string; nonce: string; resources: readonly Resource[] }>;

export function initialSotwState(streamId: string, settings: StreamSettings): SotwState {
  return Object.freeze({ ...initialStreamState(streamId, settings), held: new Map() });
}

/** Takes a state-of-the-world stream one event further (xDS, "Basic Protocol Overview" and what follows). */
export function stepSotw(state: SotwState, event: StreamEvent<SotwRequest>): Step<SotwState, SotwAnswer> {
  if (event.kind === 'snapshot') return answer(state, event, []);
  const { request } = event;
  const { last } = state;
  // xDS: a request with a stale nonce is not answered. It is ignored as a whole, subscription and all: it was sent before
  // its client had read our newest answer, and the client's reply to that one carries its full list of names again. A
  // first request has nothing to be stale against: its nonce, if any, belongs to an earlier stream (spire#813).
  if (last !== undefined && request.nonce !== last.nonce) {
    return { state, notes: [{ kind: 'stale_nonce', nonce: request.nonce }] };
  }
  const subscription = replaceNames(state.subscription, request.names);
  const next: SotwState = {
    ...state,
    node: request.node ?? state.node,
    subscription,
    held: stillHeld(state.held, subscription),
    last: last?.reply.kind === 'pending' ? { ...last, reply: replyOf(request.refusal) } : last,
  };
  // Further requests with the same nonce only change the subscription: the answer has had its reply.
  return answer(next, event, last?.reply.kind === 'pending' ? [noteOfReply(last, request.refusal)] : []);
}

/**
 * Sends when what is known of the subscription differs from what the client was last sent. So a refused answer is never
 * sent again, a change to other names sends nothing, and a client that lets go of a name and comes back gets it anew.
 */
function answer(
  state: SotwState,
  { catalog, now }: Pick<StreamEvent<SotwRequest>, 'catalog' | 'now'>,
  notes: readonly Note[],
): Step<SotwState, SotwAnswer> {
  if (state.subscription === undefined || !catalog.ready) return { state, notes };
  const view = viewFor(state, catalog);
  const resources = resolve(view, state.subscription, state.held, now);
  const answered = new Set(resources.map(({ name }) => name));
  const unanswered = [...state.subscription.names]
    .filter((name) => !answered.has(name))
    .map((name) => unansweredNote(view, name));
  const { reported, notes: fresh } = newlyReported(state, unanswered);
  const allNotes = [...notes, ...fresh];
  const fail = rejection(state.settings, unanswered);
  if (fail !== undefined) return { state: { ...state, reported }, notes: allNotes, fail };
  // An answer without resources says nothing to Envoy: for secrets, state of the world has no way to say "absent".
  if (resources.length === 0 || isHeld(resources, state.held)) {
    return { state: { ...state, reported }, notes: allNotes };
  }
  const version = answerVersion(resources);
  const nonce = nextNonce(state);
  return {
    state: {
      ...state,
      reported,
      held: new Map(resources.map((resource) => [resource.name, resource.version])),
      answers: state.answers + 1,
      last: { nonce, version, names: namesOf(resources), reply: { kind: 'pending' } },
    },
    send: { version, nonce, resources },
    notes: allNotes,
  };
}

function resolve(
  view: ResourceView,
  subscription: Subscription,
  held: ReadonlyMap<string, string>,
  now: number,
): readonly Resource[] {
  const names = subscription.everything
    ? new Set([...view.everything().map(({ name }) => name), ...held.keys()])
    : subscription.names;
  return [...names]
    .sort()
    .map((name) => view.find(name))
    .filter((resource) => resource !== undefined)
    .filter((resource) => isUsable(resource, held.get(resource.name), now));
}

function stillHeld(
  held: ReadonlyMap<string, string>,
  subscription: Subscription,
): ReadonlyMap<string, string> {
  if (subscription.everything) return held;
  return new Map([...held].filter(([name]) => subscription.names.has(name)));
}

function isHeld(resources: readonly Resource[], held: ReadonlyMap<string, string>): boolean {
  return resources.length === held.size && resources.every(({ name, version }) => held.get(name) === version);
}
