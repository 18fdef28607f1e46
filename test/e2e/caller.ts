/** Somebody on the sidecar's socket who speaks gRPC but is no Envoy. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { createGrpcClient } from '../../src/grpc/client.ts';
import type { MessageTypes } from '../../src/grpc/messages.ts';
import { messageCodec } from '../../src/grpc/protos.ts';
import type { Json } from '../support/envoy-config.ts';
import { buildWasmBundle } from '../support/opa.ts';
import { tempDirectory } from '../support/process.ts';
import { type Sidecar, type SidecarOptions, startSidecar } from '../support/sidecar.ts';
import { devIdentity, entrypoint, policy } from './world.ts';

type Attributes = NonNullable<MessageTypes['envoy.service.auth.v3.CheckRequest']['in']['attributes']>;
type Answer = Readonly<{ http: string | undefined; reason: unknown }>;

const request = messageCodec('envoy.service.auth.v3.CheckRequest');
const response = messageCodec('envoy.service.auth.v3.CheckResponse');
const options = { signal: new AbortController().signal, timeoutMs: 5000 };

export type Caller = Readonly<{
  sidecar: Sidecar;
  workloadApi: string;
  send: (bytes: Buffer) => Promise<Buffer>;
  check: (attributes: Attributes) => Promise<Answer>;
}>;

/** Starts a sidecar with the policy of this world, or another one, and connects to it. */
export async function startCaller(
  t: TestContext,
  extAuthz: Json = {},
  {
    rego = policy,
    timeout = '2s',
    entrypoints = [entrypoint],
    files = {},
    config = {},
    process = {},
  }: {
    rego?: string;
    files?: Readonly<Record<string, string>>;
    timeout?: string;
    entrypoints?: readonly string[];
    config?: Json;
    process?: Pick<SidecarOptions, 'env' | 'nodeArgs'>;
  } = {},
): Promise<Caller> {
  const directory = await tempDirectory(t);
  const workloadApi = `unix://${join(directory, 'workload.sock')}`;
  const file = join(directory, 'bundle.tar.gz');
  await buildWasmBundle(t, { files: { 'policy.rego': rego, ...files }, entrypoints, into: file });
  const sidecar = await startSidecar(t, {
    ...process,
    config: {
      identity: devIdentity({ serve_workload_api: workloadApi }),
      ext_authz: { path: entrypoint, ...extAuthz },
      policy: { engine: 'wasm', bundle: { file }, timeout },
      ...config,
    },
  });
  return { sidecar, workloadApi, ...connectCaller(t, sidecar) };
}

/** Connects to a sidecar that runs already. */
export function connectCaller(t: TestContext, sidecar: Sidecar): Pick<Caller, 'send' | 'check'> {
  const client = createGrpcClient({
    target: { kind: 'unix', path: sidecar.socket },
    maxMessageBytes: 8 << 20,
  });
  t.after(() => client.close());
  const send = (bytes: Buffer): Promise<Buffer> =>
    client.unary('/envoy.service.auth.v3.Authorization/Check', bytes, options);
  return { send, check: async (attributes) => answerOf(await send(request.encode({ attributes }))) };
}

export function answerOf(bytes: Buffer): Answer {
  const { deniedResponse, dynamicMetadata, status } = response.decode(bytes);
  return {
    http: deniedResponse?.status?.code ?? (status?.code === 0 ? 'OK' : undefined),
    reason: dynamicMetadata?.fields?.reason_code?.stringValue,
  };
}

/** An HTTP request as Envoy describes it. */
export const http = {
  method: 'GET',
  path: '/',
  host: 'acme',
  scheme: 'https',
  protocol: 'HTTP/1.1',
  headers: {},
};
