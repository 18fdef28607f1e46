import type { Config } from '../config/config.ts';
import { type Credentials, createCredentials } from '../extauthz/credentials.ts';
import { createBridgePeerSource } from '../extauthz/peer/bridge.ts';
import { createIssuerKeys, type IssuerKeys, type IssuerKeysMeter } from '../extauthz/peer/issuer-keys.ts';
import { createJwtPeerSource } from '../extauthz/peer/jwt-peer.ts';
import { createMtlsPeerSource } from '../extauthz/peer/mtls-peer.ts';
import type { PeerSource } from '../extauthz/peer/peer.ts';
import { createXfccPeerSource } from '../extauthz/peer/xfcc-peer.ts';
import { createHttpClient } from '../http/client.ts';
import { compileRequestRules } from '../policy/request-rules.ts';
import { ConfigError, type ConfigProblem } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { JwtSvidKey } from '../tokens/cache-entries.ts';

/** Gives the token of a JWT-SVID of exactly that identity and audience. */
export type MintToken = (key: JwtSvidKey, signal: AbortSignal) => Promise<string>;

/** Throws ConfigError with every problem in the matches of `inject_jwt_svid`, `bridge` and `shadow`. */
export function checkJwtMatches({ extAuthz }: Config): void {
  const problems: ConfigProblem[] = [];
  for (const [rules, at] of [
    [extAuthz.injectJwtSvid, injectAt],
    [extAuthz.bridge, bridgeAt],
    [extAuthz.shadow, shadowAt],
  ] as const) {
    try {
      compileRequestRules<(typeof rules)[number]>(rules, at);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      problems.push(...error.problems);
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);
}

const injectAt = 'ext_authz.inject_jwt_svid';
const bridgeAt = 'ext_authz.bridge';
export const shadowAt = 'ext_authz.shadow';

/** Where the peer is looked for, in the order of the product's rules: the first source that applies decides. */
export function createPeerSources(
  { extAuthz }: Config,
  deps: { now: () => number; log: Logger; meter: IssuerKeysMeter },
): readonly PeerSource[] {
  const { verifyCertificate, trustXfcc, jwtSvid } = extAuthz.peer;
  const { now } = deps;
  return [
    ...(extAuthz.bridge.length === 0 ? [] : [createBridge(extAuthz.bridge, deps)]),
    trustXfcc
      ? createXfccPeerSource({ verifyCertificate, now })
      : createMtlsPeerSource({ verifyCertificate, now }),
    ...(jwtSvid.audiences.length === 0 ? [] : [createJwtPeerSource({ ...jwtSvid, now })]),
  ];
}

function createBridge(
  bridges: Config['extAuthz']['bridge'],
  deps: { now: () => number; log: Logger; meter: IssuerKeysMeter },
): PeerSource {
  const http = createHttpClient({ maxSockets: 2 });
  const keysByUrl = new Map<string, IssuerKeys>();
  const keysOf = (url: string): IssuerKeys => {
    const keys = keysByUrl.get(url) ?? createIssuerKeys({ url, http, ...deps });
    keysByUrl.set(url, keys);
    return keys;
  };
  const rules = bridges.map(({ jwksUrl, ...rule }) => ({ ...rule, keys: keysOf(jwksUrl) }));
  return createBridgePeerSource({ rules: compileRequestRules(rules, bridgeAt), now: deps.now });
}

/** Undefined when no request is ever given a JWT-SVID. */
export function createConfiguredCredentials(
  { extAuthz, sds }: Config,
  mint: MintToken,
): Credentials | undefined {
  const { injectJwtSvid, bridge } = extAuthz;
  if (injectJwtSvid.length === 0 && bridge.length === 0) return undefined;
  return createCredentials({
    rules: compileRequestRules(injectJwtSvid, injectAt),
    mint,
    defaultSvidHint: sds.defaultSvidHint,
  });
}

/** The headers that carry tokens by configuration, for whoever writes requests down. */
export function tokenHeadersOf({ extAuthz }: Config): readonly string[] {
  const { peer, injectJwtSvid, bridge } = extAuthz;
  return [peer.jwtSvid, ...injectJwtSvid, ...bridge].map(({ header }) => header);
}
