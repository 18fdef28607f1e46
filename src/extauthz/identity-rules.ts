import { type IdPattern, matchesId } from '../spiffe/match.ts';
import { type SpiffeId, type TrustDomain, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { Peer } from './peer/peer.ts';
import { type Refusal, refuse } from './reason.ts';

/** Identity patterns, compiled so that a list of plain IDs costs one look-up however long it is. */
export interface IdentityList {
  has(id: SpiffeId, trustDomain: TrustDomain): boolean;
  /** True when some pattern is about this trust domain. */
  mentions(trustDomain: TrustDomain): boolean;
}

export function compileIdentityList(patterns: readonly IdPattern[]): IdentityList {
  const literal = new Set<string>();
  const starred = new Map<TrustDomain, IdPattern[]>();
  for (const pattern of patterns) {
    const ofDomain = starred.get(pattern.trustDomain) ?? [];
    starred.set(pattern.trustDomain, ofDomain);
    if (pattern.pieces.length === 1) literal.add(pattern.text);
    else ofDomain.push(pattern);
  }
  return Object.freeze({
    has: (id: SpiffeId, trustDomain: TrustDomain) =>
      literal.has(id) || (starred.get(trustDomain)?.some((pattern) => matchesId(pattern, id)) ?? false),
    mentions: (trustDomain: TrustDomain) => starred.has(trustDomain),
  });
}

/** Who may pass to the policy. */
export type IdentityRules = Readonly<{
  /** Deny a peer without a SPIFFE ID; false lets the policy judge it. */
  requirePeer: boolean;
  /** Denied whatever else is said of them. */
  denied: IdentityList;
  /** Replaces the default, which is every ID of the own trust domain. */
  allowed?: IdentityList | undefined;
  /** What of each federated trust domain may pass; a domain in here is judged by its own entry alone. */
  federated?: ReadonlyMap<TrustDomain, IdentityList> | undefined;
}>;

/** The first rule that fits decides; undefined when the peer may go on to the policy. */
export function judgePeer(
  rules: IdentityRules,
  peer: Peer,
  ownTrustDomain: TrustDomain | undefined,
): Refusal | undefined {
  if (peer.id === undefined) {
    return rules.requirePeer ? refuse('no_peer_identity', 'the peer has no SPIFFE ID') : undefined;
  }
  const { id, trustDomain } = peer;
  if (rules.denied.has(id, trustDomain)) return refuse('identity_denied', `${id} is on the denied list`);
  const federated = rules.federated?.get(trustDomain);
  if (federated !== undefined) {
    if (federated.has(id, trustDomain)) return undefined;
    return refuse(
      'identity_not_allowed',
      `${id} is not among the allowed identities of its federation entry`,
    );
  }
  if (rules.allowed !== undefined) {
    if (rules.allowed.has(id, trustDomain)) return undefined;
    if (trustDomain === ownTrustDomain || rules.allowed.mentions(trustDomain)) {
      return refuse('identity_not_allowed', `${id} is not among ext_authz.peer.allowed_identities`);
    }
  } else if (trustDomain === ownTrustDomain) {
    return undefined;
  }
  return refuse('foreign_trust_domain', `nothing admits peers of trust domain ${trustDomain}`);
}

/**
 * Refuses a denied identity that holds the connection although a bridge or a trusted header says that the request is
 * another one's; the other rules are about the peer alone.
 */
export function judgeHolder(
  { denied }: IdentityRules,
  peer: Peer,
  holders: readonly SpiffeId[],
): Refusal | undefined {
  if (peer.via !== 'bridge' && peer.via !== 'xfcc') return undefined;
  const holder = holders.find((id) => denied.has(id, trustDomainOf(id)));
  if (holder === undefined) return undefined;
  return refuse('identity_denied', `${holder}, who holds the connection, is on the denied list`);
}
