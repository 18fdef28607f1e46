import type { MatchSpec } from '../../policy/request-match.ts';
import type { RequestRules } from '../../policy/request-rules.ts';
import { AppError } from '../../runtime/errors.ts';
import { type ForeignJwtVerification, verifyForeignJwt } from '../../spiffe/foreign-jwt.ts';
import { fillIdTemplate, type IdTemplate } from '../../spiffe/id-template.ts';
import { queryRequestOf } from '../query-request.ts';
import { refuse } from '../reason.ts';
import { findToken } from './bearer.ts';
import type { IssuerKeys } from './issuer-keys.ts';
import { type PeerResult, type PeerSource, peerOf } from './peer.ts';

/** One entry of `ext_authz.bridge`: a JWT of another issuer comes in, a JWT-SVID of the ID it stands for goes on. */
export type BridgeRule = Readonly<{
  match: MatchSpec;
  issuer: string;
  audience: string;
  /** In lower case; read, and written with the JWT-SVID. */
  header: string;
  spiffeId: IdTemplate;
  /** The audience of the JWT-SVID. */
  mintAudience: string;
  keys: IssuerKeys;
}>;

/**
 * The peer of requests that a bridge is for: the first rule that fits verifies the JWT and maps its subject. It comes
 * before the connection's own identity, because behind a bridge the JWT says for whom the request is; without one that
 * holds, such a request is refused. The peer is to be given a JWT-SVID of exactly that ID.
 */
export function createBridgePeerSource(options: {
  rules: RequestRules<BridgeRule>;
  /** Milliseconds since the epoch. */
  now: () => number;
}): PeerSource {
  const { rules, now } = options;
  return async (request, _snapshot, signal): Promise<PeerResult | undefined> => {
    const fitting = rules.fitting(queryRequestOf(request, undefined));
    if (fitting === 'unsafe_path')
      return refuse('unsafe_path', 'path leads nowhere that a bridge could tell');
    const [rule] = fitting;
    if (rule === undefined) return undefined;
    const found = findToken(request.headers, rule.header);
    if (found === undefined) {
      return refuse('no_peer_identity', `the request has no bearer token in ${rule.header} for the bridge`);
    }
    let result: ForeignJwtVerification;
    try {
      result = await verify(found.token, rule, now(), signal);
    } catch (error) {
      if (!(error instanceof AppError) || error.code === 'aborted') throw error;
      return refuse('token_unavailable', `keys of the issuer ${rule.issuer} are not held: ${error.message}`);
    }
    if (!result.valid) return refuse('jwt_svid_invalid', `JWT in ${rule.header}: ${result.message}`);
    const spiffeId = fillIdTemplate(rule.spiffeId, result.subject);
    if (spiffeId === undefined) {
      return refuse('jwt_svid_invalid', 'sub of the JWT is not one valid segment of a SPIFFE ID');
    }
    const { header, mintAudience: audience } = rule;
    return {
      kind: 'peer',
      peer: peerOf(spiffeId, 'bridge', true),
      provenUntil: result.expiresAt,
      exchange: { header, scheme: found.scheme, audience, spiffeId },
    };
  };
}

async function verify(
  token: string,
  { issuer, audience, keys }: BridgeRule,
  now: number,
  signal: AbortSignal,
): Promise<ForeignJwtVerification> {
  const rules = { issuer, audience, now };
  const result = await verifyForeignJwt(token, { ...rules, keys: await keys.current(signal) });
  if (result.valid || result.reason !== 'unknown_key') return result;
  return verifyForeignJwt(token, { ...rules, keys: await keys.refreshed(signal) });
}
