import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { before, describe, it } from 'node:test';
import protobuf from 'protobufjs';
import { protoDirectory, protoFiles } from '../../src/grpc/protos.ts';

/** What of ours is younger than the protos in @grpc/grpc-js-xds, with the first Envoy release that knows it. */
const newer: Readonly<Record<string, string>> = {
  'envoy.service.auth.v3.CheckResponse.error_response': '1.37',
};

/** Each thing that goes over the wire, by its full name, as one line of text: two equal tables are wire compatible. */
type WireTable = Map<string, string>;

function wireTable(root: protobuf.Root): WireTable {
  const table: WireTable = new Map();
  const visit = (space: protobuf.NamespaceBase): void => {
    for (const item of space.nestedArray) {
      const name = nameOf(item);
      if (item instanceof protobuf.Service) {
        table.set(name, 'service');
        for (const method of item.methodsArray) table.set(`${name}/${method.name}`, rpcLine(method));
      } else if (item instanceof protobuf.Enum) {
        table.set(name, 'enum');
        for (const [value, number] of Object.entries(item.values))
          table.set(`${name}.${value}`, `value ${number}`);
      } else if (item instanceof protobuf.Type) {
        table.set(name, 'message');
        for (const field of item.fieldsArray) table.set(`${name}.${field.name}`, fieldLine(field));
      }
      if (item instanceof protobuf.Namespace && name !== 'google.protobuf') visit(item);
    }
  };
  visit(root);
  return table;
}

function rpcLine(method: protobuf.Method): string {
  const request = `${method.requestStream === true ? 'stream ' : ''}${nameOf(method.resolvedRequestType)}`;
  return `rpc ${request} returns ${method.responseStream === true ? 'stream ' : ''}${nameOf(method.resolvedResponseType)}`;
}

function fieldLine(field: protobuf.Field): string {
  const type = field.resolvedType === null ? field.type : nameOf(field.resolvedType);
  const key = field instanceof protobuf.MapField ? `map from ${field.keyType} to ` : '';
  const oneof = field.partOf === null || field.partOf.isProto3Optional ? '' : ` in ${field.partOf.name}`;
  return `field ${field.id} ${field.repeated ? 'repeated ' : ''}${key}${type}${oneof}`;
}

function nameOf(item: protobuf.ReflectionObject | null): string {
  return item === null ? '' : item.fullName.slice(1);
}

/** What of `ours` is not just so in `theirs`; `young` names what may be missing there, and must be. */
function differences(ours: WireTable, theirs: WireTable, young: readonly string[]): string[] {
  const found: string[] = [];
  for (const [name, line] of ours) {
    const their = theirs.get(name);
    if (young.includes(name)) {
      if (their !== undefined) found.push(`${name} is not new: upstream has it`);
    } else if (line !== their) found.push(`${name} is ${line}, upstream ${their ?? 'has no such name'}`);
  }
  for (const name of young) if (!ours.has(name)) found.push(`${name} is listed as new, but is not in proto/`);
  return found;
}

function load(files: readonly string[], folders: readonly string[]): WireTable {
  const root = new protobuf.Root();
  root.resolvePath = (_, file) =>
    folders.map((folder) => join(folder, file)).find((path) => existsSync(path)) ?? file;
  root.loadSync([...files], { keepCase: true }).resolveAll();
  return wireTable(root);
}

function loadTheirs(): WireTable {
  const root = dirname(createRequire(import.meta.url).resolve('@grpc/grpc-js-xds/package.json'));
  const folders = ['envoy-api', 'xds', 'googleapis', 'protoc-gen-validate'].map((name) =>
    join(root, 'deps', name),
  );
  return load(
    protoFiles.filter((file) => file.startsWith('envoy/')),
    folders,
  );
}

const isUpstream = (name: string): boolean => name.startsWith('envoy.') || name.startsWith('google.rpc.');

describe('proto/', () => {
  let ours: WireTable;
  let theirs: WireTable;
  const young = Object.keys(newer);

  before(() => {
    ours = new Map([...load(protoFiles, [protoDirectory])].filter(([name]) => isUpstream(name)));
    theirs = loadTheirs();
  });

  it('has no message, field, number, type, label, oneof, enum value or rpc that is not upstream', () => {
    assert.deepEqual(differences(ours, theirs, young), []);
    assert.ok(ours.size > 150, `only ${ours.size} things were compared`);
  });

  it('uses the messages of SDS and ext_authz', () => {
    for (const name of [
      'envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets',
      'envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets',
      'envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets',
      'envoy.service.auth.v3.Authorization/Check',
      'envoy.extensions.transport_sockets.tls.v3.Secret',
      'envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig.TrustDomain.trust_bundle',
      'google.rpc.Status',
    ]) {
      assert.ok(ours.has(name), name);
    }
  });

  it('is found wanting when any single line of it is changed', () => {
    for (const [name, line] of ours) {
      if (young.includes(name)) continue;
      const changed = new Map(ours).set(
        name,
        line.replace(/\d+|$/, (digits) => `${digits}9`),
      );
      assert.equal(differences(changed, theirs, young).length, 1, name);
    }
  });

  it('is found wanting when a field, a label, a type or a oneof is another', () => {
    const name = 'envoy.service.auth.v3.CheckResponse.denied_response';
    const line = ours.get(name) ?? '';
    for (const [from, to] of [
      ['field 2', 'field 3'],
      ['2 envoy', '2 repeated envoy'],
      ['DeniedHttpResponse', 'OkHttpResponse'],
      [' in http_response', ''],
    ] as const) {
      assert.ok(line.includes(from), `${line} has no ${from}`);
      assert.equal(differences(new Map(ours).set(name, line.replace(from, to)), theirs, young).length, 1);
    }
  });

  it('lists nothing as new that upstream has or that proto/ lacks', () => {
    assert.equal(differences(ours, theirs, [...young, 'envoy.config.core.v3.Node.id']).length, 1);
    assert.equal(differences(ours, theirs, [...young, 'envoy.config.core.v3.Node.nothing']).length, 1);
  });
});

describe('proto/spiffe', () => {
  it('is the Workload API of the SPIFFE standard', () => {
    const table = load(['spiffe/workload.proto'], [protoDirectory]);
    const lines = [...table].filter(([name, line]) => !name.startsWith('google.') && line !== 'message');
    assert.deepEqual(Object.fromEntries(lines), {
      SpiffeWorkloadAPI: 'service',
      'SpiffeWorkloadAPI/FetchX509SVID': 'rpc X509SVIDRequest returns stream X509SVIDResponse',
      'SpiffeWorkloadAPI/FetchX509Bundles': 'rpc X509BundlesRequest returns stream X509BundlesResponse',
      'SpiffeWorkloadAPI/FetchJWTSVID': 'rpc JWTSVIDRequest returns JWTSVIDResponse',
      'SpiffeWorkloadAPI/FetchJWTBundles': 'rpc JWTBundlesRequest returns stream JWTBundlesResponse',
      'SpiffeWorkloadAPI/ValidateJWTSVID': 'rpc ValidateJWTSVIDRequest returns ValidateJWTSVIDResponse',
      'X509SVIDResponse.svids': 'field 1 repeated X509SVID',
      'X509SVIDResponse.crl': 'field 2 repeated bytes',
      'X509SVIDResponse.federated_bundles': 'field 3 map from string to bytes',
      'X509SVID.spiffe_id': 'field 1 string',
      'X509SVID.x509_svid': 'field 2 bytes',
      'X509SVID.x509_svid_key': 'field 3 bytes',
      'X509SVID.bundle': 'field 4 bytes',
      'X509SVID.hint': 'field 5 string',
      'X509BundlesResponse.crl': 'field 1 repeated bytes',
      'X509BundlesResponse.bundles': 'field 2 map from string to bytes',
      'JWTSVIDRequest.audience': 'field 1 repeated string',
      'JWTSVIDRequest.spiffe_id': 'field 2 string',
      'JWTSVIDResponse.svids': 'field 1 repeated JWTSVID',
      'JWTSVID.spiffe_id': 'field 1 string',
      'JWTSVID.svid': 'field 2 string',
      'JWTSVID.hint': 'field 3 string',
      'JWTBundlesResponse.bundles': 'field 1 map from string to bytes',
      'ValidateJWTSVIDRequest.audience': 'field 1 string',
      'ValidateJWTSVIDRequest.svid': 'field 2 string',
      'ValidateJWTSVIDResponse.spiffe_id': 'field 1 string',
      'ValidateJWTSVIDResponse.claims': 'field 2 google.protobuf.Struct',
    });
  });
});
