import {
  parseSpiffeId,
  pathOf,
  type SpiffeId,
  type TrustDomain,
  trustDomainOf,
} from '../spiffe/spiffe-id.ts';

/** What a resource name can stand for; also the label of every metric about names. */
export const nameKinds = Object.freeze([
  'default_svid',
  'default_bundle',
  'all_bundles',
  'spiffe_id',
  'trust_domain',
  'hint',
  'jwt_svid',
  'unknown',
] as const);

export type NameKind = (typeof nameKinds)[number];

/** A resource name, understood. `unknown` is one that no snapshot will ever answer. */
export type ResourceName =
  | Readonly<{ kind: 'default_svid' | 'default_bundle' | 'all_bundles' | 'unknown' }>
  | Readonly<{ kind: 'spiffe_id'; spiffeId: SpiffeId }>
  | Readonly<{ kind: 'trust_domain'; trustDomain: TrustDomain }>
  | Readonly<{ kind: 'hint'; hint: string }>
  | Readonly<{ kind: 'jwt_svid'; audience: string }>;

/** The configurable names (`sds.default_svid_name` and its siblings, `sds.jwt_audiences`). */
export type Aliases = Readonly<{
  defaultSvidName: string;
  defaultBundleName: string;
  defaultAllBundlesName: string;
  /** The audiences that `jwt:AUDIENCE` may name: a JWT-SVID for any other is nobody's to ask for here. */
  jwtAudiences: readonly string[];
}>;

const hintPrefix = 'hint:';
const jwtPrefix = 'jwt:';

/**
 * Understands a resource name. Aliases come first, in the order SVID, own bundle, all bundles, so that of two equal
 * ones the narrower wins, as in SPIRE; then `hint:NAME` and `jwt:AUDIENCE`; then SPIFFE IDs, where one without a path
 * names a trust domain's bundle.
 */
export function parseResourceName(text: string, aliases: Aliases): ResourceName {
  if (text === aliases.defaultSvidName) return { kind: 'default_svid' };
  if (text === aliases.defaultBundleName) return { kind: 'default_bundle' };
  if (text === aliases.defaultAllBundlesName) return { kind: 'all_bundles' };
  if (text.startsWith(hintPrefix) && text !== hintPrefix) {
    return { kind: 'hint', hint: text.slice(hintPrefix.length) };
  }
  if (text.startsWith(jwtPrefix)) {
    const audience = text.slice(jwtPrefix.length);
    return aliases.jwtAudiences.includes(audience) ? { kind: 'jwt_svid', audience } : { kind: 'unknown' };
  }
  const id = spiffeIdOf(text);
  if (id === undefined) return { kind: 'unknown' };
  return pathOf(id) === ''
    ? { kind: 'trust_domain', trustDomain: trustDomainOf(id) }
    : { kind: 'spiffe_id', spiffeId: id };
}

function spiffeIdOf(text: string): SpiffeId | undefined {
  try {
    return parseSpiffeId(text);
  } catch {
    return undefined;
  }
}
