import type { MessageTypes } from '../grpc/messages.ts';

type NodeMessage = NonNullable<MessageTypes['envoy.service.discovery.v3.DiscoveryRequest']['out']['node']>;

/** What SDS needs to know of an Envoy; everything else of its Node is dropped at the border. */
export type EnvoyNode = Readonly<{
  id: string;
  cluster: string;
  /** What the node's metadata says about the SPIFFE validator; undefined when it says nothing understandable. */
  spiffeValidator: boolean | undefined;
  /** False for an Envoy that tells a version which does not have the validator. */
  supportsSpiffeValidator: boolean;
}>;

const maxTextLength = 256;
const metadataKey = 'disable_spiffe_cert_validation';
/** What Go's strconv.ParseBool takes: SPIRE's documentation has people write it as text. */
const truths = new Set(['1', 't', 'T', 'TRUE', 'true', 'True']);
const falsehoods = new Set(['0', 'f', 'F', 'FALSE', 'false', 'False']);

/** Reads the Node of a request. `id` and `cluster` are cut to 256 characters: they only tell Envoys apart. */
export function decodeNode(message: NodeMessage): EnvoyNode {
  const disabled = metadataSwitch(message);
  return Object.freeze({
    id: message.id.slice(0, maxTextLength),
    cluster: message.cluster.slice(0, maxTextLength),
    spiffeValidator: disabled === undefined ? undefined : !disabled,
    supportsSpiffeValidator: supportsSpiffeValidator(message),
  });
}

/** Whether bundles for this Envoy are written for the SPIFFE validator; `configured` is `sds.spiffe_validator`. */
export function usesSpiffeValidator(node: EnvoyNode | undefined, configured: boolean): boolean {
  if (node === undefined) return configured;
  return (node.spiffeValidator ?? configured) && node.supportsSpiffeValidator;
}

function metadataSwitch(message: NodeMessage): boolean | undefined {
  const fields = message.metadata?.fields;
  if (fields === undefined || !Object.hasOwn(fields, metadataKey)) return undefined;
  const value = fields[metadataKey];
  if (value?.kind === 'boolValue') return value.boolValue;
  if (value?.kind !== 'stringValue' || value.stringValue === undefined) return undefined;
  if (truths.has(value.stringValue)) return true;
  return falsehoods.has(value.stringValue) ? false : undefined;
}

/** Envoy has the validator since 1.18. One that tells no version in numbers is taken to be new enough, as in SPIRE. */
function supportsSpiffeValidator(message: NodeMessage): boolean {
  const version = message.userAgentBuildVersion?.version;
  if (version === undefined || version === null) return true;
  return version.majorNumber > 1 || (version.majorNumber === 1 && version.minorNumber > 17);
}
