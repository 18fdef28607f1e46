import type { JsonObject } from '../../policy/decision.ts';
import type { SelectedQuery } from '../../policy/query-map.ts';
import { pathOf, type SpiffeId, trustDomainOf } from '../../spiffe/spiffe-id.ts';
import type { BodyOptions } from '../body/body.ts';
import type { CheckRequest } from '../check-attributes.ts';
import type { Peer } from '../peer/peer.ts';

/** Everything that an input shape is built from. */
export type InputParts = Readonly<{
  request: CheckRequest;
  peer: Peer;
  /** Our end: the destination's principal when it is a SPIFFE ID, else our own default SPIFFE ID. */
  destination: SpiffeId | undefined;
  query: SelectedQuery;
  body: BodyOptions;
}>;

/** `spiffe` of every shape: what was verified here, never what was claimed. Ends without an ID have no `id`. */
export function spiffeInput(parts: InputParts): JsonObject {
  const { peer, destination } = parts;
  return {
    source:
      peer.id === undefined
        ? { via: peer.via, verified: peer.verified }
        : {
            id: peer.id,
            trust_domain: peer.trustDomain,
            path: peer.path,
            via: peer.via,
            verified: peer.verified,
          },
    destination:
      destination === undefined
        ? {}
        : { id: destination, trust_domain: trustDomainOf(destination), path: pathOf(destination) },
  };
}

/** The query's constants without those that would stand where a fact about the request belongs, present or not. */
export function constantsBeside(facts: ReadonlySet<string>, set: JsonObject): Record<string, unknown> {
  return Object.fromEntries(Object.entries(set).filter(([name]) => !facts.has(name)));
}
