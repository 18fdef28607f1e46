import { messageCodec } from '../grpc/protos.ts';
import type { CallContext, Method, Service } from '../grpc/service.ts';
import { Status, StatusError } from '../grpc/status.ts';
import { type AppError, toAppError } from '../runtime/errors.ts';
import type { JwtBundleSet, X509Bundle } from '../spiffe/bundle.ts';
import { formatJwks } from '../spiffe/bundle-document.ts';
import { verifyJwtSvid } from '../spiffe/jwt-svid.ts';
import { idOfTrustDomain, parseSpiffeId, type SpiffeId, trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { X509Context } from '../spiffe/x509-context.ts';
import { buildStruct } from './claims-struct.ts';
import type { IdentitySource, WatchEvent } from './identity-source.ts';

const x509Response = messageCodec('X509SVIDResponse');
const x509BundlesResponse = messageCodec('X509BundlesResponse');
const jwtBundlesResponse = messageCodec('JWTBundlesResponse');
const jwtSvidRequest = messageCodec('JWTSVIDRequest');
const jwtSvidResponse = messageCodec('JWTSVIDResponse');
const validateRequest = messageCodec('ValidateJWTSVIDRequest');
const validateResponse = messageCodec('ValidateJWTSVIDResponse');

/**
 * A standard SPIFFE Workload API over an identity source: every message is the full state, the first comes at once, and
 * statuses and their texts are SPIRE's. Whoever reaches the socket gets the identities, so its file mode is the only
 * guard: it attests nobody and is for development. The WIT calls are absent, that is UNIMPLEMENTED.
 */
export function createWorkloadApiService(source: IdentitySource, now: () => number): Service {
  return Object.freeze({
    name: 'SpiffeWorkloadAPI',
    methods: Object.freeze({
      FetchX509SVID: stream(
        'X509SVIDRequest',
        (signal) => source.watchX509(signal),
        (context) => x509Response.encode(x509Message(context)),
      ),
      FetchX509Bundles: stream(
        'X509BundlesRequest',
        (signal) => source.watchX509(signal),
        ({ bundles }) =>
          x509BundlesResponse.encode({
            crl: [...bundles.values()].flatMap(({ crls }) => crls),
            bundles: Object.fromEntries([...bundles.values()].map(bundleEntry)),
          }),
      ),
      FetchJWTBundles: stream(
        'JWTBundlesRequest',
        (signal) => source.watchJwtBundles(signal),
        (bundles) =>
          jwtBundlesResponse.encode({
            bundles: Object.fromEntries(
              [...bundles.values()].map((bundle) => [
                idOfTrustDomain(bundle.trustDomain),
                Buffer.from(formatJwks(bundle)),
              ]),
            ),
          }),
      ),
      FetchJWTSVID: fetchJwtSvid(source),
      ValidateJWTSVID: validateJwtSvid(source, now),
    }),
  });
}

/** A server stream of encoded states; a state equal to the one before is not sent again. */
function stream<T>(
  requestName: 'X509SVIDRequest' | 'X509BundlesRequest' | 'JWTBundlesRequest',
  watch: (signal: AbortSignal) => AsyncIterable<WatchEvent<T>>,
  encode: (value: T) => Buffer,
): Method {
  return {
    kind: 'server_stream',
    decode: messageCodec(requestName).decode,
    encode: (bytes: Buffer) => bytes,
    async *handle(_request: unknown, call: CallContext): AsyncIterable<Buffer> {
      requireHeader(call);
      let sent: Buffer | undefined;
      for await (const event of watch(call.signal)) {
        if (event.kind === 'revoked') throw new StatusError(Status.PERMISSION_DENIED, 'no identity issued');
        if (event.kind === 'failed') {
          if (sent !== undefined && !event.terminal) continue;
          throw new StatusError(Status.UNAVAILABLE, event.error.message);
        }
        const bytes = encode(event.value);
        if (sent?.equals(bytes) === true) continue;
        sent = bytes;
        yield bytes;
      }
    },
  };
}

function fetchJwtSvid(source: IdentitySource): Method {
  return {
    kind: 'unary',
    decode: jwtSvidRequest.decode,
    encode: jwtSvidResponse.encode,
    async handle({ audience, spiffeId }: ReturnType<typeof jwtSvidRequest.decode>, call: CallContext) {
      requireHeader(call);
      if (audience.length === 0 || audience.includes('')) throw invalid('audience must be specified');
      const id = spiffeId === '' ? undefined : requestedId(spiffeId);
      const svids = await source
        .fetchJwtSvids({ audiences: audience, spiffeId: id }, call.signal)
        .catch((error: unknown) => {
          throw fetchFailure(toAppError(error));
        });
      return { svids: svids.map(({ spiffeId, token, hint }) => ({ spiffeId, svid: token, hint })) };
    },
  };
}

function validateJwtSvid(source: IdentitySource, now: () => number): Method {
  return {
    kind: 'unary',
    decode: validateRequest.decode,
    encode: validateResponse.encode,
    async handle({ audience, svid }: ReturnType<typeof validateRequest.decode>, call: CallContext) {
      requireHeader(call);
      if (audience === '') throw invalid('audience must be specified');
      if (svid === '') throw invalid('svid must be specified');
      const verification = await verifyJwtSvid(
        svid,
        [audience],
        await currentJwtBundles(source, call),
        now(),
      );
      if (!verification.valid) throw invalid(verification.message);
      const { spiffeId, claims } = verification;
      // As SPIRE does: `aud` may be a bare string in the token, validators see an array.
      return { spiffeId, claims: buildStruct({ ...claims, aud: [claims['aud']].flat() }) };
    },
  };
}

async function currentJwtBundles(source: IdentitySource, call: CallContext): Promise<JwtBundleSet> {
  const done = new AbortController();
  try {
    for await (const event of source.watchJwtBundles(AbortSignal.any([call.signal, done.signal]))) {
      if (event.kind === 'update') return event.value;
      if (event.kind === 'revoked') throw new StatusError(Status.PERMISSION_DENIED, 'no identity issued');
      throw new StatusError(Status.UNAVAILABLE, event.error.message);
    }
  } finally {
    done.abort();
  }
  throw new StatusError(Status.UNAVAILABLE, 'no JWT bundle');
}

function x509Message({ svids, bundles }: X509Context) {
  const own = new Set(svids.map(({ spiffeId }) => trustDomainOf(spiffeId)));
  const all = [...bundles.values()];
  return {
    svids: svids.map(({ spiffeId, chain, privateKey, hint }) => ({
      spiffeId,
      x509Svid: Buffer.concat(chain.map(({ der }) => der)),
      x509SvidKey: privateKey,
      bundle: bundleDer(bundles.get(trustDomainOf(spiffeId))),
      hint,
    })),
    crl: all.flatMap(({ crls }) => crls),
    federatedBundles: Object.fromEntries(
      all.filter(({ trustDomain }) => !own.has(trustDomain)).map(bundleEntry),
    ),
  };
}

function bundleEntry(bundle: X509Bundle): [string, Buffer] {
  return [idOfTrustDomain(bundle.trustDomain), bundleDer(bundle)];
}

function bundleDer(bundle: X509Bundle | undefined): Buffer {
  return Buffer.concat((bundle?.authorities ?? []).map(({ der }) => der));
}

/** Workload Endpoint §5: exactly this value, exactly once. */
function requireHeader(call: CallContext): void {
  const values = call.metadata('workload.spiffe.io');
  if (values.length !== 1 || values[0] !== 'true') throw invalid('security header missing from request');
}

function requestedId(text: string): SpiffeId {
  try {
    return parseSpiffeId(text);
  } catch (error) {
    throw invalid(`invalid requested SPIFFE ID: ${toAppError(error).message}`);
  }
}

function fetchFailure(error: AppError): StatusError {
  if (error.code === 'permission_denied')
    return new StatusError(Status.PERMISSION_DENIED, 'no identity issued');
  return new StatusError(Status.UNAVAILABLE, `could not fetch JWT-SVID: ${error.message}`, { cause: error });
}

function invalid(details: string): StatusError {
  return new StatusError(Status.INVALID_ARGUMENT, details);
}
