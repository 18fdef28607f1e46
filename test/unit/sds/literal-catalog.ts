import { type NameKind, parseResourceName } from '../../../src/sds/names.ts';
import type { Catalog, Resource, ResourceView } from '../../../src/sds/resources.ts';

/** The names that the literal catalogs of these tests know. */
export const aliases = Object.freeze({
  defaultSvidName: 'default',
  defaultBundleName: 'ROOTCA',
  defaultAllBundlesName: 'ALL',
  jwtAudiences: ['billing'],
});

export type Literal = string | Readonly<{ version: string; expiresAt?: number; gone?: boolean }>;

/** A catalog written down as version by name, the same for every validator mode unless `plain` differs. */
export function literalCatalog(
  content: Readonly<Record<string, Literal>>,
  plain: Readonly<Record<string, Literal>> = content,
): Catalog {
  const views = [literalView(plain), literalView(content)] as const;
  return { ready: true, view: (spiffeValidator) => (spiffeValidator ? views[1] : views[0]) };
}

/** The catalog before anything is known. */
export const unreadyCatalog: Catalog = { ready: false, view: () => literalView({}) };

function literalView(content: Readonly<Record<string, Literal>>): ResourceView {
  const resources = new Map(Object.entries(content).map(([name, value]) => [name, resource(name, value)]));
  return {
    find: (name) => resources.get(name),
    everything: () =>
      [...resources.values()].filter(
        ({ kind, gone }) => !gone && (kind === 'spiffe_id' || kind === 'trust_domain'),
      ),
    kindOf,
  };
}

function resource(name: string, literal: Literal): Resource {
  const {
    version,
    expiresAt = Number.POSITIVE_INFINITY,
    gone = false,
  } = typeof literal === 'string' ? { version: literal } : literal;
  return { name, kind: kindOf(name), version, secret: Buffer.from(`${name}=${version}`), expiresAt, gone };
}

function kindOf(name: string): NameKind {
  return parseResourceName(name, aliases).kind;
}
