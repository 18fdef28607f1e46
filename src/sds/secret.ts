import { messageCodec } from '../grpc/protos.ts';
import {
  type Certificate,
  encodeCertificatesPem,
  encodeCrlPem,
  encodePrivateKeyPem,
} from '../spiffe/certificate.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';

/** The type of every resource of this service. */
export const secretTypeUrl = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

/** What a validation context trusts: authorities by trust domain, each domain once, in the order given. */
export type Trust = readonly Readonly<{
  trustDomain: TrustDomain;
  authorities: readonly Certificate[];
  /** DER; see chooseCrls. */
  crls?: readonly Buffer[] | undefined;
}>[];

const secretCodec = messageCodec('envoy.extensions.transport_sockets.tls.v3.Secret');
const validatorCodec = messageCodec('envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig');
const validatorName = 'envoy.tls.cert_validator.spiffe';
const validatorTypeUrl =
  'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig';

/** A Secret message with the SVID's chain, one PEM block a certificate, leaf first, and its key as PKCS#8 PEM. */
export function encodeTlsCertificate(name: string, svid: X509Svid): Buffer {
  return secretCodec.encode({
    name,
    tlsCertificate: {
      certificateChain: { inlineBytes: encodeCertificatesPem(svid.chain) },
      privateKey: { inlineBytes: encodePrivateKeyPem(svid.privateKey) },
    },
  });
}

/**
 * A Secret message for Envoy's SPIFFE validator, which lets the authorities of a domain vouch for that domain only. It
 * never carries SAN matchers: Envoy adds them to the static ones by OR, which would widen a pinned client.
 */
export function encodeSpiffeValidator(name: string, trust: Trust): Buffer {
  const value = validatorCodec.encode({
    trustDomains: trust.map(({ trustDomain, authorities, crls = [] }) => ({
      name: trustDomain,
      // The validator reads CRLs here; it ignores those of the validation context.
      trustBundle: { inlineBytes: Buffer.concat([encodeCertificatesPem(authorities), encodeCrls(crls)]) },
    })),
  });
  return secretCodec.encode({
    name,
    validationContext: {
      customValidatorConfig: { name: validatorName, typedConfig: { type_url: validatorTypeUrl, value } },
    },
  });
}

/** A Secret message with a token, as Envoy's credential injector puts it behind its `header_value_prefix`. */
export function encodeGenericSecret(name: string, token: string): Buffer {
  return secretCodec.encode({ name, genericSecret: { secret: { inlineString: token } } });
}

/** A Secret message with plain `trusted_ca` and `crl`, for the authorities of one trust domain. */
export function encodeTrustedCa(
  name: string,
  authorities: readonly Certificate[],
  crls: readonly Buffer[] = [],
): Buffer {
  return secretCodec.encode({
    name,
    validationContext: {
      trustedCa: { inlineBytes: encodeCertificatesPem(authorities) },
      ...(crls.length === 0 ? {} : { crl: { inlineBytes: encodeCrls(crls) } }),
    },
  });
}

function encodeCrls(crls: readonly Buffer[]): Buffer {
  return Buffer.concat(crls.map(encodeCrlPem));
}
