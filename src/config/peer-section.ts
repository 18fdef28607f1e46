import { z } from 'zod';
import type { IdPattern } from '../spiffe/match.ts';
import { file, idPattern, name, tokenHeader } from './fields.ts';
import type { ResolveFile } from './resolve-file.ts';

/** How the peer is known, and the identity rules. */
export const peer = z.strictObject({
  require: z
    .boolean()
    .default(true)
    .describe('A request without a SPIFFE ID is denied and policy is not asked.'),
  verify_certificate: z
    .enum(['required', 'when_present', 'off'])
    .default('when_present')
    .describe(
      'Whether source.certificate is checked against the live bundles, and whether it must be there.',
    ),
  trust_xfcc: z
    .boolean()
    .default(false)
    .describe(
      'The peer is whom x-forwarded-client-cert names last; only behind an Envoy that sanitizes that header, and sends `cert` in it if it admits other trust domains.',
    ),
  jwt_svid: z
    .strictObject({
      header: tokenHeader().prefault('authorization').describe('Where the JWT-SVID stands.'),
      audiences: z
        .array(name())
        .max(100)
        .default([])
        .describe(
          'A request without a SPIFFE ID of its connection may show a JWT-SVID for one of these; none turns that off.',
        ),
    })
    .prefault({}),
  allowed_identities: z.array(idPattern()).max(1000).optional().meta({
    otherwise: 'every ID of the own trust domain',
    description: 'Patterns of the SPIFFE IDs that may pass; in a path `*` spans segments.',
  }),
  denied_identities: z
    .array(idPattern())
    .max(1000)
    .default([])
    .describe('Patterns of the SPIFFE IDs that are denied, whatever else is said of them.'),
  denied_identities_file: file()
    .optional()
    .describe(
      'More of them, one pattern a line; the file is watched and a new line is in force within a second.',
    ),
});

/** Who a peer is taken to be, and which peers may pass. */
export type PeerConfig = Readonly<{
  require: boolean;
  verifyCertificate: 'required' | 'when_present' | 'off';
  trustXfcc: boolean;
  /** The header in lower case; without audiences no header is read. */
  jwtSvid: Readonly<{ header: string; audiences: readonly string[] }>;
  /** Undefined: every ID of the own trust domain. */
  allowedIdentities: readonly IdPattern[] | undefined;
  deniedIdentities: readonly IdPattern[];
  deniedIdentitiesFile: string | undefined;
}>;

export function buildPeer(options: z.output<typeof peer>, resolve: ResolveFile): PeerConfig {
  return {
    require: options.require,
    verifyCertificate: options.verify_certificate,
    trustXfcc: options.trust_xfcc,
    jwtSvid: options.jwt_svid,
    allowedIdentities: options.allowed_identities,
    deniedIdentities: options.denied_identities,
    deniedIdentitiesFile: resolve(options.denied_identities_file),
  };
}
