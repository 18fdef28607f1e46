import { z } from 'zod';
import { name } from './fields.ts';

/** What Envoys are given, and under which names. */
export const sds = z.strictObject({
  enabled: z.boolean().default(true).describe('Serves SVIDs and bundles to Envoy over SDS.'),
  default_svid_name: name().prefault('default').describe('The secret name that means the default SVID.'),
  default_bundle_name: name()
    .prefault('ROOTCA')
    .describe('The secret name that means the bundle of the own trust domain.'),
  default_all_bundles_name: name()
    .prefault('ALL')
    .describe('The secret name that means every bundle held, own and federated.'),
  spiffe_validator: z
    .boolean()
    .default(true)
    .describe(
      "Bundles are sent for Envoy's SPIFFE validator; false sends a plain trusted_ca. Node metadata disable_spiffe_cert_validation overrides it per Envoy.",
    ),
  default_svid_hint: name()
    .optional()
    .describe('Picks the default SVID by its hint; without it the first SVID is the default.'),
  jwt_audiences: z
    .array(name())
    .max(100)
    .default([])
    .describe(
      'Audiences for which a JWT-SVID of the default identity is served, as the generic secret `jwt:AUDIENCE`.',
    ),
  unknown_names: z
    .enum(['wait', 'reject'])
    .default('wait')
    .describe(
      'For a secret name that nothing is known of: wait sends it when it appears, reject ends the stream with INVALID_ARGUMENT.',
    ),
});

export type SdsConfig = Readonly<{
  enabled: boolean;
  defaultSvidName: string;
  defaultBundleName: string;
  defaultAllBundlesName: string;
  spiffeValidator: boolean;
  defaultSvidHint: string | undefined;
  jwtAudiences: readonly string[];
  unknownNames: 'wait' | 'reject';
}>;

export function buildSds(options: z.output<typeof sds>): SdsConfig {
  return {
    enabled: options.enabled,
    defaultSvidName: options.default_svid_name,
    defaultBundleName: options.default_bundle_name,
    defaultAllBundlesName: options.default_all_bundles_name,
    spiffeValidator: options.spiffe_validator,
    defaultSvidHint: options.default_svid_hint,
    jwtAudiences: options.jwt_audiences,
    unknownNames: options.unknown_names,
  };
}
