import type { NameValue } from '../policy/decision.ts';
import type { MatchSpec } from '../policy/request-match.ts';
import type { RequestRules } from '../policy/request-rules.ts';
import { AppError } from '../runtime/errors.ts';
import type { JwtSvidKey } from '../tokens/cache-entries.ts';
import { defaultSvid, type TrustSnapshot } from '../trust/snapshot.ts';
import type { CheckRequest } from './check-attributes.ts';
import type { CredentialSpec } from './credential-spec.ts';
import type { Peer } from './peer/peer.ts';
import { queryRequestOf } from './query-request.ts';
import { type Refusal, refuse } from './reason.ts';

/** One entry of `ext_authz.inject_jwt_svid`: a JWT-SVID of our own default identity. */
export type InjectRule = Readonly<{ match: MatchSpec; header: string; scheme: string; audience: string }>;

/** Puts JWT-SVIDs into requests that are let through. */
export interface Credentials {
  /** What this request needs: nothing for most. A header is set once: an exchange goes first, then the first rule. */
  wanted(
    request: CheckRequest,
    peer: Peer,
    exchange: CredentialSpec | undefined,
    snapshot: TrustSnapshot,
  ): readonly CredentialSpec[] | Refusal;
  /** The headers, or the refusal `token_unavailable` when one cannot be had; rejects only with AbortedError. */
  issue(specs: readonly CredentialSpec[], signal: AbortSignal): Promise<readonly NameValue[] | Refusal>;
}

export type CredentialsOptions = Readonly<{
  rules: RequestRules<InjectRule>;
  /** The token of a JWT-SVID of exactly that identity and audience. */
  mint: (key: JwtSvidKey, signal: AbortSignal) => Promise<string>;
  /** Picks the identity that rules inject: the default SVID's, as for SDS. */
  defaultSvidHint: string | undefined;
}>;

export function createCredentials({ rules, mint, defaultSvidHint }: CredentialsOptions): Credentials {
  return Object.freeze({
    wanted(request: CheckRequest, peer: Peer, exchange: CredentialSpec | undefined, snapshot: TrustSnapshot) {
      const exchanged = exchange === undefined ? none : [exchange];
      // A TCP connection has no headers to put anything into.
      if (request.attributes?.request?.http === undefined) return exchanged;
      const fitting = rules.fitting(queryRequestOf(request, peer.id));
      if (fitting === 'unsafe_path') {
        return refuse(
          'unsafe_path',
          'whether a JWT-SVID belongs into the request cannot be told by its path',
        );
      }
      if (fitting.length === 0) return exchanged;
      const spiffeId = defaultSvid(snapshot, defaultSvidHint)?.spiffeId;
      if (spiffeId === undefined) return refuse('token_unavailable', 'there is no default SVID');
      const own = fitting.map(({ header, scheme, audience }) => ({ header, scheme, audience, spiffeId }));
      return firstOfEachHeader([...exchanged, ...own]);
    },
    async issue(specs: readonly CredentialSpec[], signal: AbortSignal) {
      try {
        return await Promise.all(
          specs.map(async ({ header, scheme, audience, spiffeId }): Promise<NameValue> => {
            const token = await mint({ audience, spiffeId }, signal);
            return { name: header, value: scheme === '' ? token : `${scheme} ${token}` };
          }),
        );
      } catch (error) {
        if (!(error instanceof AppError) || (error.code === 'aborted' && signal.aborted)) throw error;
        return refuse('token_unavailable', `JWT-SVID for the request: ${error.message}`);
      }
    },
  } satisfies Credentials);
}

const none: readonly never[] = Object.freeze([]);

function firstOfEachHeader(specs: readonly CredentialSpec[]): readonly CredentialSpec[] {
  const headers = new Set<string>();
  return specs.filter(({ header }) => {
    const isFirst = !headers.has(header);
    headers.add(header);
    return isFirst;
  });
}
