import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadConfig } from '../src/config/load.ts';
import { type BootstrapOptions, buildBootstrap, formatBootstrap } from '../src/envoy/bootstrap.ts';
import { parseIdPattern } from '../src/spiffe/match.ts';

const server: BootstrapOptions = {
  mode: 'server',
  protocol: 'http',
  sds: 'sotw',
  listener: { host: '0.0.0.0', port: 8443 },
  upstream: { kind: 'tcp', host: '127.0.0.1', port: 8080 },
  admin: { host: '127.0.0.1', port: 9901 },
  nodeId: 'envoy',
  nodeCluster: 'envoy',
};

type Sample = Readonly<{
  name: string;
  flags: string;
  options: BootstrapOptions;
  /** The config in bootstrap/; svidecar.yaml when absent. */
  config?: string;
}>;

const samples: readonly Sample[] = [
  {
    name: 'sds-ext-authz',
    flags: '--listener 0.0.0.0:8443 --upstream 127.0.0.1:8080',
    options: server,
  },
  {
    name: 'federated',
    flags: '--listener 0.0.0.0:8443 --upstream 127.0.0.1:8080',
    options: server,
    config: 'svidecar-federated.yaml',
  },
  {
    name: 'delta-sds',
    flags: '--listener 0.0.0.0:8443 --upstream 127.0.0.1:8080 --sds delta',
    options: { ...server, sds: 'delta' },
  },
  {
    name: 'tcp-ext-authz',
    flags: '--listener 0.0.0.0:8443 --upstream 127.0.0.1:8080 --protocol tcp',
    options: { ...server, protocol: 'tcp' },
  },
  {
    name: 'client',
    flags:
      '--mode client --listener 127.0.0.1:9000 --upstream web.internal:8443 --upstream-spiffe-id spiffe://example.org/service/web',
    options: {
      ...server,
      mode: 'client',
      listener: { host: '127.0.0.1', port: 9000 },
      upstream: { kind: 'tcp', host: 'web.internal', port: 8443 },
      upstreamIdentity: parseIdPattern('spiffe://example.org/service/web'),
    },
  },
];

/** The files of bootstrap/ by their path in the project, with the flags that print each. */
export function bootstrapSamples(
  root: string,
): readonly Readonly<{ path: string; flags: string; text: string }>[] {
  return samples.map(({ name, flags, options, config: file = 'svidecar.yaml' }) => {
    const text = readFileSync(join(root, 'bootstrap', file), 'utf8');
    const { config } = loadConfig({ text, env: {} });
    const all = `${flags} --envoy-admin 127.0.0.1:9901`;
    return {
      path: `bootstrap/${name}.yaml`,
      flags: all,
      text: `# svidecar bootstrap --config ${file} ${all}\n${formatBootstrap(buildBootstrap(config, options))}`,
    };
  });
}
