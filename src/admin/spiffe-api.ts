import { AppError, LimitError, MalformedError } from '../runtime/errors.ts';
import { formatBundleDocument, formatJwks } from '../spiffe/bundle-document.ts';
import { encodeCertificatesPem, parsePemCertificates } from '../spiffe/certificate.ts';
import { type JsonObject, parseJsonObject } from '../spiffe/json.ts';
import { verifyJwtSvid } from '../spiffe/jwt-svid.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import { verifyX509Svid, type X509Verification } from '../spiffe/verify.ts';
import { maxChainLength, type X509Svid } from '../spiffe/x509-svid.ts';
import type { JwtSvidCache } from '../tokens/jwt-svid-cache.ts';
import type { SnapshotReader, TrustSnapshot } from '../trust/snapshot.ts';
import type { EventStream } from './event-stream.ts';
import { type AdminRequest, type Answer, get, json, post, type Routes, refusal, text } from './http.ts';
import { type IdentityHistory, trustDomainsOf } from './identity-history.ts';
import {
  type BundleInfo,
  bundleJson,
  identityJson,
  jwtJson,
  jwtVerificationJson,
  x509Json,
  x509VerificationJson,
} from './spiffe-json.ts';

export type SpiffeApiOptions = Readonly<{
  snapshots: SnapshotReader;
  /** The default X509-SVID of a snapshot when it may be given away: there is one and it has not expired. */
  usableSvid: (snapshot: TrustSnapshot) => X509Svid | undefined;
  source: () => Readonly<{ name: BundleInfo['source']; problem: string | undefined }>;
  /** What is known of a bundle beside its content; undefined for one that the identity source gave. */
  bundleInfo: (trustDomain: TrustDomain) => BundleInfo | undefined;
  history: IdentityHistory;
  events: EventStream;
  /** Undefined: JWT-SVIDs are not given to clients of the admin server. */
  tokens: Pick<JwtSvidCache, 'get'> | undefined;
  /** Milliseconds since the epoch. */
  now: () => number;
}>;

const noIdentity = 'no X509-SVID that is valid is held';

/** The SPIFFE paths of the admin server, its event stream, and the own JWT authorities for Envoy's jwt_authn. */
export function createSpiffeRoutes(options: SpiffeApiOptions): Routes {
  const { snapshots, usableSvid, source, bundleInfo, history, events, tokens, now } = options;

  /** Answers from the default identity, or says that there is none. */
  const withSvid = (answer: (svid: X509Svid) => Answer) => (): Answer => {
    const svid = usableSvid(snapshots.current());
    return svid === undefined ? refusal(503, source().problem ?? noIdentity) : answer(svid);
  };

  function status(): Answer {
    const snapshot = snapshots.current();
    const { name, problem } = source();
    const svid = usableSvid(snapshot);
    const error = problem ?? (svid === undefined ? noIdentity : undefined);
    return json(200, {
      enabled: error === undefined,
      trust_domain: snapshot.trustDomain ?? null,
      spiffe_id: svid?.spiffeId ?? null,
      source: name,
      ...(error === undefined ? {} : { error }),
    });
  }

  async function jwtSvid({ query, signal }: AdminRequest): Promise<Answer> {
    if (tokens === undefined) {
      return refusal(403, 'JWT-SVIDs are not given away here: admin.allow_jwt_svid is false');
    }
    const svid = usableSvid(snapshots.current());
    if (svid === undefined) return refusal(503, source().problem ?? noIdentity);
    const [audience = '', ...others] = query.getAll('audience');
    if (audience === '') return refusal(400, 'audience is missing: add ?audience=NAME');
    if (others.length > 0) return refusal(400, 'audience is there more than once');
    try {
      return json(200, jwtJson(await tokens.get({ audience, spiffeId: svid.spiffeId }, signal), audience));
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      return refusal(error.code === 'invalid_argument' ? 400 : 503, error.message);
    }
  }

  function ownBundle(): Answer {
    const { trustDomain, bundles, jwtBundles } = snapshots.current();
    const x509 = trustDomain === undefined ? undefined : bundles.get(trustDomain);
    if (trustDomain === undefined || x509 === undefined) return refusal(503, source().problem ?? noIdentity);
    const jwt = jwtBundles.get(trustDomain) ?? { trustDomain, authorities: [] };
    const { sequence, refreshHintS } = bundleInfo(trustDomain) ?? {};
    return text(200, 'application/json', formatBundleDocument({ x509, jwt, sequence, refreshHintS }));
  }

  function allBundles(): Answer {
    const snapshot = snapshots.current();
    const entries = trustDomainsOf(snapshot).map((name) => {
      const info = bundleInfo(name) ?? { source: source().name };
      const fetchedAt = info.fetchedAt ?? history.bundleChangedAt(name);
      return [name, bundleJson(snapshot, name, { ...info, fetchedAt })];
    });
    return json(200, { trust_domains: Object.fromEntries(entries) });
  }

  function ownJwks(): Answer {
    const { trustDomain, jwtBundles } = snapshots.current();
    const bundle = trustDomain === undefined ? undefined : jwtBundles.get(trustDomain);
    return bundle === undefined
      ? refusal(503, source().problem ?? 'no JWT bundle of the own trust domain is held')
      : text(200, 'application/json', formatJwks(bundle));
  }

  function validateX509({ body }: AdminRequest): Answer {
    const pem = textMember(parseJsonObject(body, 'body'), 'certificate');
    // As in a Check: an intermediate of our own domain may be known although it was not sent.
    const { bundles, intermediates } = snapshots.current();
    return json(
      200,
      x509VerificationJson(verifyPem(pem, (chain) => verifyX509Svid(chain, bundles, now(), intermediates))),
    );
  }

  async function validateJwt({ body }: AdminRequest): Promise<Answer> {
    const members = parseJsonObject(body, 'body');
    const token = textMember(members, 'token');
    const audience = textMember(members, 'audience');
    if (audience === '') throw new MalformedError('member audience of the body is empty');
    const { jwtBundles } = snapshots.current();
    return json(200, jwtVerificationJson(await verifyJwtSvid(token, [audience], jwtBundles, now())));
  }

  return new Map([
    ['/spiffe/status', get(status)],
    ['/spiffe/svid/x509', get(withSvid((svid) => json(200, x509Json(svid))))],
    [
      '/spiffe/svid/x509/chain',
      get(
        withSvid(({ chain }) =>
          text(200, 'application/pem-certificate-chain', encodeCertificatesPem(chain).toString()),
        ),
      ),
    ],
    ['/spiffe/svid/jwt', get(jwtSvid)],
    ['/spiffe/.well-known/spiffe-bundle', get(ownBundle)],
    ['/spiffe/trust-bundle', get(allBundles)],
    [
      '/spiffe/workload',
      get(
        withSvid(() =>
          json(200, {
            svids: snapshots.current().svids.map((svid) => identityJson(svid, history.rotatedAt(svid))),
          }),
        ),
      ),
    ],
    ['/spiffe/validate/x509', post(validateX509)],
    ['/spiffe/validate/jwt', post(validateJwt)],
    ['/.well-known/jwks.json', get(ownJwks)],
    [
      '/events',
      get(({ signal }) =>
        events.full()
          ? refusal(503, 'too many clients listen to events')
          : { contentType: 'text/event-stream', chunks: events.open(signal) },
      ),
    ],
  ]);
}

/** What is no chain of certificates is a refusal like any other, not a fault of the request. */
function verifyPem(
  pem: string,
  verify: (chain: ReturnType<typeof parsePemCertificates>) => X509Verification,
): X509Verification {
  try {
    return verify(parsePemCertificates(pem, maxChainLength));
  } catch (error) {
    if (!(error instanceof MalformedError || error instanceof LimitError)) throw error;
    return { valid: false, reason: 'malformed', message: error.message };
  }
}

function textMember(members: JsonObject, name: string): string {
  const value = members[name];
  if (typeof value !== 'string') throw new MalformedError(`member ${name} of the body must be text`);
  return value;
}
