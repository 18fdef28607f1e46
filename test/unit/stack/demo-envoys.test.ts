import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import { clientBootstrap, serverBootstrap, strangerBootstrap } from '../../../src/stack/demo-envoys.ts';

const { config } = loadConfig({
  text: JSON.stringify({ identity: { source: 'dev', dev: { trust_domain: 'dev.local' } } }),
  env: {},
});
const server = { port: 15_001, adminPort: 15_002, spiffeId: 'spiffe://dev.local/service/server' };
const client = { port: 15_003, adminPort: 15_004, spiffeId: 'spiffe://dev.local/service/web' };

test('each Envoy asks for the SVID of its own SPIFFE ID', () => {
  assert.ok(JSON.stringify(serverBootstrap(config, server, 1)).includes(`"name":"${server.spiffeId}"`));
  const text = JSON.stringify(clientBootstrap(config, client, server));
  assert.ok(text.includes(`"name":"${client.spiffeId}"`));
  assert.ok(!text.includes(`"name":"${server.spiffeId}"`));
});

test('the server asks by delta and the client by state of the world, so that the demo shows both', () => {
  assert.match(JSON.stringify(serverBootstrap(config, server, 1)), /"api_type":"DELTA_GRPC"/);
  assert.match(JSON.stringify(clientBootstrap(config, client, server)), /"api_type":"GRPC"/);
});

test('a client pins the server and opens new connections as it goes', () => {
  const text = JSON.stringify(clientBootstrap(config, client, server));
  assert.ok(text.includes(`"exact":"${server.spiffeId}"`));
  assert.match(text, /"max_requests_per_connection":20/);
});

test('a stranger shows a certificate and trusts every server', () => {
  const text = JSON.stringify(strangerBootstrap(config, client, server));
  assert.match(text, /tls_certificate_sds_secret_configs/);
  assert.doesNotMatch(text, /validation_context/);
});
