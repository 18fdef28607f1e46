import type { NameKind } from './names.ts';
import type { Unanswered, UnansweredNote } from './stream.ts';

type Remedy = Readonly<{ reason: string; remedy: string }>;

/** Why a name is not answered, and what an operator can do about it. */
export function describeUnanswered({ reason, nameKind }: UnansweredNote): Remedy {
  return reason === 'unknown' || reason === 'not_issued' ? unknownNames[nameKind] : otherReasons[reason];
}

const otherReasons: Readonly<Record<Exclude<Unanswered, 'unknown' | 'not_issued'>, Remedy>> = Object.freeze({
  expired: {
    reason: 'the SVID has expired',
    remedy: 'its source has to renew it: see that the Workload API is reachable',
  },
  needs_spiffe_validator: {
    reason: 'only the SPIFFE validator keeps several trust domains apart',
    remedy:
      'turn on sds.spiffe_validator, take disable_spiffe_cert_validation out of the node metadata, use Envoy 1.18 or newer, or ask for one trust domain by its name',
  },
});

const unknownNames: Readonly<Record<NameKind, Remedy>> = Object.freeze({
  default_svid: {
    reason: 'there is no default SVID',
    remedy: 'register this workload; with sds.default_svid_hint, give one of its entries that hint',
  },
  default_bundle: {
    reason: 'the bundle of the own trust domain is not held',
    remedy: 'see that the Workload API gives this workload an identity',
  },
  all_bundles: {
    reason: 'no bundle is held',
    remedy: 'see that the Workload API gives this workload an identity',
  },
  spiffe_id: {
    reason: 'this workload is not granted that SPIFFE ID',
    remedy: 'register it for this workload, or correct the name in the Envoy configuration',
  },
  trust_domain: {
    reason: 'no bundle of that trust domain is held',
    remedy: 'federate with it, or correct the name in the Envoy configuration',
  },
  hint: {
    reason: 'no SVID of this workload has that hint',
    remedy: 'give one of its registration entries that hint, or correct the name in the Envoy configuration',
  },
  jwt_svid: {
    reason: 'no JWT-SVID for that audience is held yet',
    remedy: 'see that the Workload API gives this workload an identity and issues JWT-SVIDs to it',
  },
  unknown: {
    reason: 'the name is neither a configured one, nor hint:NAME, nor jwt:AUDIENCE, nor a SPIFFE ID',
    remedy:
      'correct it in the Envoy configuration, or set sds.default_svid_name and its siblings, or list the audience in sds.jwt_audiences',
  },
});
