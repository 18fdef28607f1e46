import type { Secret, Secret__Output } from './generated/envoy/extensions/transport_sockets/tls/v3/Secret.ts';
import type {
  SPIFFECertValidatorConfig,
  SPIFFECertValidatorConfig__Output,
} from './generated/envoy/extensions/transport_sockets/tls/v3/SPIFFECertValidatorConfig.ts';
import type { CheckRequest, CheckRequest__Output } from './generated/envoy/service/auth/v3/CheckRequest.ts';
import type {
  CheckResponse,
  CheckResponse__Output,
} from './generated/envoy/service/auth/v3/CheckResponse.ts';
import type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryRequest__Output,
} from './generated/envoy/service/discovery/v3/DeltaDiscoveryRequest.ts';
import type {
  DeltaDiscoveryResponse,
  DeltaDiscoveryResponse__Output,
} from './generated/envoy/service/discovery/v3/DeltaDiscoveryResponse.ts';
import type {
  DiscoveryRequest,
  DiscoveryRequest__Output,
} from './generated/envoy/service/discovery/v3/DiscoveryRequest.ts';
import type {
  DiscoveryResponse,
  DiscoveryResponse__Output,
} from './generated/envoy/service/discovery/v3/DiscoveryResponse.ts';
import type { Resource, Resource__Output } from './generated/envoy/service/discovery/v3/Resource.ts';
import type {
  HealthCheckRequest,
  HealthCheckRequest__Output,
} from './generated/grpc/health/v1/HealthCheckRequest.ts';
import type {
  HealthCheckResponse,
  HealthCheckResponse__Output,
} from './generated/grpc/health/v1/HealthCheckResponse.ts';
import type {
  HealthListRequest,
  HealthListRequest__Output,
} from './generated/grpc/health/v1/HealthListRequest.ts';
import type {
  HealthListResponse,
  HealthListResponse__Output,
} from './generated/grpc/health/v1/HealthListResponse.ts';
import type { JWTBundlesRequest, JWTBundlesRequest__Output } from './generated/JWTBundlesRequest.ts';
import type { JWTBundlesResponse, JWTBundlesResponse__Output } from './generated/JWTBundlesResponse.ts';
import type { JWTSVIDRequest, JWTSVIDRequest__Output } from './generated/JWTSVIDRequest.ts';
import type { JWTSVIDResponse, JWTSVIDResponse__Output } from './generated/JWTSVIDResponse.ts';
import type {
  ValidateJWTSVIDRequest,
  ValidateJWTSVIDRequest__Output,
} from './generated/ValidateJWTSVIDRequest.ts';
import type {
  ValidateJWTSVIDResponse,
  ValidateJWTSVIDResponse__Output,
} from './generated/ValidateJWTSVIDResponse.ts';
import type { X509BundlesRequest, X509BundlesRequest__Output } from './generated/X509BundlesRequest.ts';
import type { X509BundlesResponse, X509BundlesResponse__Output } from './generated/X509BundlesResponse.ts';
import type { X509SVIDRequest, X509SVIDRequest__Output } from './generated/X509SVIDRequest.ts';
import type { X509SVIDResponse, X509SVIDResponse__Output } from './generated/X509SVIDResponse.ts';

/**
 * The messages that have a codec, by full name: `in` is what may be encoded, `out` what decoding gives. The types are
 * generated from proto/ by `npm run generate`.
 */
export type MessageTypes = {
  'envoy.service.auth.v3.CheckRequest': { in: CheckRequest; out: CheckRequest__Output };
  'envoy.service.auth.v3.CheckResponse': { in: CheckResponse; out: CheckResponse__Output };
  'envoy.service.discovery.v3.DiscoveryRequest': { in: DiscoveryRequest; out: DiscoveryRequest__Output };
  'envoy.service.discovery.v3.DiscoveryResponse': { in: DiscoveryResponse; out: DiscoveryResponse__Output };
  'envoy.service.discovery.v3.DeltaDiscoveryRequest': {
    in: DeltaDiscoveryRequest;
    out: DeltaDiscoveryRequest__Output;
  };
  'envoy.service.discovery.v3.DeltaDiscoveryResponse': {
    in: DeltaDiscoveryResponse;
    out: DeltaDiscoveryResponse__Output;
  };
  'envoy.service.discovery.v3.Resource': { in: Resource; out: Resource__Output };
  'envoy.extensions.transport_sockets.tls.v3.Secret': { in: Secret; out: Secret__Output };
  'envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig': {
    in: SPIFFECertValidatorConfig;
    out: SPIFFECertValidatorConfig__Output;
  };
  'grpc.health.v1.HealthCheckRequest': { in: HealthCheckRequest; out: HealthCheckRequest__Output };
  'grpc.health.v1.HealthCheckResponse': { in: HealthCheckResponse; out: HealthCheckResponse__Output };
  'grpc.health.v1.HealthListRequest': { in: HealthListRequest; out: HealthListRequest__Output };
  'grpc.health.v1.HealthListResponse': { in: HealthListResponse; out: HealthListResponse__Output };
  X509SVIDRequest: { in: X509SVIDRequest; out: X509SVIDRequest__Output };
  X509SVIDResponse: { in: X509SVIDResponse; out: X509SVIDResponse__Output };
  X509BundlesRequest: { in: X509BundlesRequest; out: X509BundlesRequest__Output };
  X509BundlesResponse: { in: X509BundlesResponse; out: X509BundlesResponse__Output };
  JWTSVIDRequest: { in: JWTSVIDRequest; out: JWTSVIDRequest__Output };
  JWTSVIDResponse: { in: JWTSVIDResponse; out: JWTSVIDResponse__Output };
  JWTBundlesRequest: { in: JWTBundlesRequest; out: JWTBundlesRequest__Output };
  JWTBundlesResponse: { in: JWTBundlesResponse; out: JWTBundlesResponse__Output };
  ValidateJWTSVIDRequest: { in: ValidateJWTSVIDRequest; out: ValidateJWTSVIDRequest__Output };
  ValidateJWTSVIDResponse: { in: ValidateJWTSVIDResponse; out: ValidateJWTSVIDResponse__Output };
};

export type MessageName = keyof MessageTypes;
