import { messageCodec } from '../grpc/protos.ts';
import type { DeltaAnswer } from './delta-stream.ts';
import { secretTypeUrl } from './secret.ts';
import type { SotwAnswer } from './sotw-stream.ts';

const sotwCodec = messageCodec('envoy.service.discovery.v3.DiscoveryResponse');
const deltaCodec = messageCodec('envoy.service.discovery.v3.DeltaDiscoveryResponse');

/** Envoy logs it and exports it as a stat. */
const controlPlane = Object.freeze({ identifier: 'svidecar' });

/** A DiscoveryResponse. */
export function encodeSotwAnswer({ version, nonce, resources }: SotwAnswer): Buffer {
  return sotwCodec.encode({
    versionInfo: version,
    resources: resources.map(({ secret }) => ({ type_url: secretTypeUrl, value: secret })),
    typeUrl: secretTypeUrl,
    nonce,
    controlPlane,
  });
}

/** A DeltaDiscoveryResponse. */
export function encodeDeltaAnswer({ version, nonce, resources, removed }: DeltaAnswer): Buffer {
  return deltaCodec.encode({
    systemVersionInfo: version,
    resources: resources.map((resource) => ({
      name: resource.name,
      version: resource.version,
      resource: { type_url: secretTypeUrl, value: resource.secret },
    })),
    removedResources: [...removed],
    typeUrl: secretTypeUrl,
    nonce,
    controlPlane,
  });
}
