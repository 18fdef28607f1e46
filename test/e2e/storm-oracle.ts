/** What the storm asks and, worked out apart from the program, what each Check must be answered. */
import { messageCodec } from '../../src/grpc/protos.ts';

const id = (path: string): string => `spiffe://acme.test/${path}`;
export const agents = [1, 2, 3, 4].map((n) => id(`agent/${n}`));
export const [turned, revoked, plain] = [id('agent/turned'), id('agent/revoked'), id('agent/plain')];
const foreign = 'spiffe://partner.test/agent/1';

/** What decides at a time: in turn the module is another one, or its data are. */
export type PolicyVersion = Readonly<{
  step: number;
  /** How often the module has changed, and how often the data. */
  modules: number;
  version: number;
  modulus: 3 | 4;
  offset: number;
  banned: readonly string[];
}>;

export function policyVersion(step: number): PolicyVersion {
  const [modules, version] = [Math.floor(step / 2), Math.ceil(step / 2)];
  return {
    step,
    modules,
    version,
    modulus: modules % 2 === 0 ? 4 : 3,
    offset: (version * 5) % 11,
    banned: version % 3 === 0 ? agents.slice(3) : [],
  };
}

/** The rules by which a version decides; `modulus` is in the module, the rest in `state`, a term of Rego. */
export const rego = (modulus: number, state = 'data.state'): string => `package storm

import rego.v1

modulus := ${modulus}

state := ${state}

decision(n) := result if {
	passes := passes_for(n)
	result := {
		"allowed": passes,
		"reason": reasons[passes],
		"headers": {"x-version": format_int(state.version, 10)},
		"dynamic_metadata": {"version": state.version, "modulus": modulus, "n": n, "peer": input.spiffe.source.id},
	}
}

reasons := {true: "even so", false: "the odds are against it"}

default passes_for(_) := false

passes_for(n) if {
	(n + state.offset) % modulus < 2
	not banned
}

banned if input.spiffe.source.id in state.banned

envoy := decision(input.parsed_body.n)

envoy := decision(to_number(input.parsed_path[1])) if input.parsed_body == null

weave := decision(to_number(split(input.path, "/")[2]))

vault := decision(to_number(input.resource.owner))
`;

export const entrypoints = ['storm/envoy', 'storm/weave', 'storm/vault'];

export const extAuthz = {
  path: 'storm/envoy',
  queries: [
    { match: { path: '/cached/:n' }, path: 'storm/envoy', cache_key: ['peer', 'method', 'path'] },
    {
      match: { path: '/weave/:n', context: { api: 'weave' } },
      path: 'storm/weave',
      input: 'agentweave',
    },
    {
      match: { path: '/vault/:n', peer: id('agent/:name'), method: ['GET', 'POST'] },
      path: 'storm/vault',
      input: 'agentvault',
      set: { action: 'read', resource: { type: 'box', owner: '{n}' } },
    },
  ],
};

/** What is trusted: whether the second authority is in the bundle, and whether the CRL names `revoked`. */
export type Trust = Readonly<{ second: boolean; revoking: boolean }>;
export type World = Readonly<{ trust: Trust; denied: ReadonlySet<string> }>;

export type Request = Readonly<{
  bytes: Buffer;
  peer: string | undefined;
  /** What is wrong before anybody looks at the peer, of its proof, or after that. */
  fault: 'bytes' | 'mismatch' | 'path' | 'unsafe' | 'body' | undefined;
  n: number;
}>;

export type Answer = Readonly<{
  http: string | undefined;
  reason: unknown;
  decisionId: string | undefined;
  /** What the policy says of itself. */
  version: number | undefined;
  modulus: unknown;
  n: unknown;
  peer: unknown;
}>;

/** The answer that the rules prescribe; `asked` is false when it does not depend on the policy. */
export type Prescribed = Readonly<{ http: string; reason: string | undefined; asked: boolean }>;

const refuse = (reason: string, http = 'Forbidden'): Prescribed => ({ http, reason, asked: false });

export function prescribed(
  request: Request,
  { trust, denied }: World,
  policy: PolicyVersion | undefined,
): Prescribed {
  const { peer, fault, n } = request;
  if (fault === 'bytes') return refuse('malformed_request', 'BadRequest');
  if (fault === 'mismatch') return refuse('peer_mismatch');
  if (peer === undefined) return refuse('no_peer_identity');
  if (peer === turned && !trust.second) return refuse('untrusted_chain');
  if (peer === revoked && trust.revoking) return refuse('untrusted_chain');
  if (denied.has(peer)) return refuse('identity_denied');
  if (peer === foreign) return refuse('foreign_trust_domain');
  if (fault === 'unsafe') return refuse('unsafe_path');
  if (fault !== undefined) return refuse('malformed_request', 'BadRequest');
  const passes =
    policy !== undefined && (n + policy.offset) % policy.modulus < 2 && !policy.banned.includes(peer);
  return passes
    ? { http: 'OK', reason: undefined, asked: true }
    : { http: 'Forbidden', reason: 'policy_denied', asked: true };
}

const request = messageCodec('envoy.service.auth.v3.CheckRequest');
const response = messageCodec('envoy.service.auth.v3.CheckResponse');

/** A source of requests of every kind; `certificates` are URL-encoded PEM by SPIFFE ID. */
export function createRequests(certificates: ReadonlyMap<string, string>): (index: number) => Request {
  const peers = [...agents, ...agents, turned, revoked, plain, foreign, undefined];
  const certificateOf = (peer: string | undefined): string => certificates.get(peer ?? '') ?? '';
  return (index) => {
    // Steps that have no divisor in common, so that every kind of request meets every peer.
    const peer = peers[index % peers.length];
    const number = Math.floor(index / 7) % 997;
    const mismatch = index % 101 === 0 && peer !== undefined && certificateOf(peer) !== '';
    const kind = kinds[index % kinds.length] ?? kinds[0];
    const { n = number, fault, path, method = 'GET', headers = {}, body = '', context = {} } = kind(number);
    const garbage = fault === 'bytes';
    const certificate = certificateOf(mismatch ? agents[peer === agents[0] ? 1 : 0] : peer);
    const attributes = {
      source: { principal: peer ?? '', certificate },
      destination: { principal: id('server') },
      request: { http: { id: String(index), method, path, host: 'acme', scheme: 'https', headers, body } },
      contextExtensions: context,
    };
    const bytes = request.encode({ attributes });
    return {
      bytes: garbage ? bytes.subarray(0, bytes.length - 3) : bytes,
      peer,
      fault: garbage ? fault : mismatch ? 'mismatch' : fault,
      n,
    };
  };
}

type Kind = Readonly<{
  path: string;
  /** What the policy decides on, where it is not the number given. */
  n?: number;
  fault?: Request['fault'];
  method?: string;
  headers?: Record<string, string>;
  body?: string;
  context?: Record<string, string>;
}>;

/** Few enough of them that a decision held from before a change is asked for after it. */
const cached = (n: number): Kind => ({ path: `/cached/${n % 3}`, n: n % 3 });

const json = { 'content-type': 'application/json' };
const kinds: readonly [(n: number) => Kind, ...((n: number) => Kind)[]] = [
  cached,
  (n) => ({ path: `/n/${n}?q=${n}` }),
  (n) => ({ path: `/weave/${n}`, context: { api: 'weave' } }),
  (n) => ({ path: `/n/${n}`, headers: { 'x-more': 'y'.repeat(300), cookie: 'secret=1' } }),
  (n) => ({ path: `/vault/${n}` }),
  (n) => ({ path: '/body', method: 'POST', headers: json, body: JSON.stringify({ n, more: ['x', n] }) }),
  cached,
  (n) => ({ path: `/vault/${n}`, method: 'POST' }),
  (n) => ({
    path: '/body',
    method: 'POST',
    headers: json,
    body: `{"n":${n},"long":"${'z'.repeat(40_000)}"}`,
  }),
  (n) => ({ path: `/n/${n}/%zz`, fault: 'path' }),
  (n) => ({ path: `/cached/${n}/../1`, fault: 'unsafe' }),
  () => ({ path: '/body', method: 'POST', headers: json, body: '{"n":', fault: 'body' }),
  () => ({ path: '/n/1', fault: 'bytes' }),
  (n) => ({ path: `/n/${n}`, headers: { 'content-type': 'text/plain' }, body: '{"n":1}' }),
  cached,
  cached,
];

export function readAnswer(bytes: Buffer): Answer {
  const { deniedResponse, dynamicMetadata, status } = response.decode(bytes);
  const said = dynamicMetadata?.fields ?? {};
  return {
    http: deniedResponse?.status?.code ?? (status?.code === 0 ? 'OK' : undefined),
    reason: said['reason_code']?.stringValue,
    decisionId: said['decision_id']?.stringValue,
    version: said['version']?.numberValue,
    modulus: said['modulus']?.numberValue,
    n: said['n']?.numberValue,
    peer: said['peer']?.stringValue,
  };
}
