import { MalformedError } from '../runtime/errors.ts';
import { type JsonObject, parseJsonObject } from './json.ts';
import { parseSpiffeId, pathOf, type SpiffeId } from './spiffe-id.ts';

/** Why a JWT-SVID is refused: the closed list of the product's contract. */
export type JwtReason =
  | 'malformed'
  | 'unsupported_algorithm'
  | 'bad_type'
  | 'missing_subject'
  | 'invalid_spiffe_id'
  | 'missing_audience'
  | 'audience_mismatch'
  | 'missing_expiry'
  | 'expired'
  | 'not_yet_valid'
  | 'unknown_trust_domain'
  | 'unknown_key'
  | 'bad_signature';

export type JwtRefusal = Readonly<{ valid: false; reason: JwtReason; message: string }>;

/** The algorithms of JWT-SVID §2.1; no others, ever. */
export type JwtAlgorithm = `${'RS' | 'ES' | 'PS'}${256 | 384 | 512}`;

/** A token whose form is that of a JWT-SVID. Nothing of it is verified. */
export type ParsedJwt = Readonly<{
  algorithm: JwtAlgorithm;
  keyId: string | undefined;
  spiffeId: SpiffeId;
  audiences: readonly string[];
  /** Milliseconds since the epoch. */
  expiresAt: number;
  notBefore: number | undefined;
  issuedAt: number | undefined;
  claims: JsonObject;
}>;

/** The longest token that is looked at, in bytes. */
const maxTokenBytes = 16 * 1024;

const algorithms: ReadonlySet<unknown> = new Set(
  ['RS', 'ES', 'PS'].flatMap((family) => [256, 384, 512].map((size) => family + size)),
);
const types: readonly unknown[] = [undefined, 'JWT', 'JOSE'];
const base64url = /^[A-Za-z0-9_-]+$/;
/** The last second that a Date can hold. */
const maxSeconds = 8_640_000_000_000;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Parses a JWS in compact form by JWT-SVID §2 and §3: strict base64url, one of nine algorithms, `typ` JWT, JOSE or
 * absent, `sub` a SPIFFE ID with a path, `aud` and `exp` there. Never throws.
 */
export function parseJwt(token: string): ParsedJwt | JwtRefusal {
  try {
    return parse(token);
  } catch (error) {
    if (error instanceof Refused) return { valid: false, reason: error.reason, message: error.message };
    throw error;
  }
}

export function isRefusal(result: ParsedJwt | JwtRefusal): result is JwtRefusal {
  return 'reason' in result;
}

class Refused extends MalformedError {
  readonly reason: JwtReason;

  constructor(reason: JwtReason, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** A JWS in compact form whose payload is a JSON object. Nothing of it is verified. */
export type CompactJws = Readonly<{
  algorithm: JwtAlgorithm;
  keyId: string | undefined;
  type: unknown;
  claims: JsonObject;
}>;

function parse(token: string): ParsedJwt {
  const { algorithm, keyId, type, claims } = parseCompactJws(token);
  if (!types.includes(type)) throw new Refused('bad_type', 'token has a typ other than JWT or JOSE');
  return {
    algorithm,
    keyId,
    spiffeId: parseSubject(claims['sub']),
    audiences: parseAudiences(claims['aud']),
    expiresAt: parseExpiry(claims['exp']),
    notBefore: parseTime(claims['nbf'], 'nbf'),
    issuedAt: parseTime(claims['iat'], 'iat'),
    claims,
  };
}

/**
 * Parses a JWS in compact form: strict base64url, one of nine asymmetric algorithms, no `crit`. Throws MalformedError,
 * which never quotes the token.
 */
export function parseCompactJws(token: string): CompactJws {
  if (token.length > maxTokenBytes)
    throw new Refused('malformed', `token is longer than ${maxTokenBytes} bytes`);
  const parts = token.split('.');
  const [header, payload, signature] = parts;
  if (parts.length !== 3 || header === undefined || payload === undefined || signature === undefined) {
    throw new Refused('malformed', 'token does not have three parts');
  }
  const { algorithm, keyId, type } = parseHeader(decodeObject(header, 'token header'));
  decodeBase64url(signature, 'token signature');
  return { algorithm, keyId, type, claims: decodeObject(payload, 'token payload') };
}

function parseHeader(header: JsonObject): Omit<CompactJws, 'claims'> {
  const { alg, kid, typ } = header;
  if (typeof alg !== 'string') throw new Refused('malformed', 'token header has no alg');
  if (!algorithms.has(alg))
    throw new Refused('unsupported_algorithm', 'token has an alg that JWT-SVID does not allow');
  // Both change what is signed or demand what we do not do (RFC 7515 §4.1.11, RFC 7797).
  if ('crit' in header || 'b64' in header) throw new Refused('malformed', 'token header has crit or b64');
  if (kid !== undefined && typeof kid !== 'string')
    throw new Refused('malformed', 'token has a kid that is no string');
  return { algorithm: alg as JwtAlgorithm, keyId: kid === '' ? undefined : kid, type: typ };
}

function parseSubject(sub: unknown): SpiffeId {
  if (sub === undefined || sub === '') throw new Refused('missing_subject', 'token has no sub');
  if (typeof sub !== 'string') throw new Refused('malformed', 'token has a sub that is no string');
  let id: SpiffeId;
  try {
    id = parseSpiffeId(sub);
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    throw new Refused('invalid_spiffe_id', `token has a sub that is no SPIFFE ID: ${error.message}`);
  }
  if (pathOf(id) === '') throw new Refused('invalid_spiffe_id', 'token has a sub without a path');
  return id;
}

/** The `aud` of a token, text or list; throws MalformedError for none. */
export function parseAudiences(aud: unknown): readonly string[] {
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : aud === undefined ? [] : [aud];
  if (!audiences.every((audience) => typeof audience === 'string')) {
    throw new Refused('malformed', 'token has an aud that is neither a string nor a list of strings');
  }
  if (audiences.every((audience) => audience === ''))
    throw new Refused('missing_audience', 'token has no aud');
  return audiences;
}

/** The required `exp` in milliseconds since the epoch; throws MalformedError. */
export function parseExpiry(exp: unknown): number {
  const expiresAt = parseTime(exp, 'exp');
  if (expiresAt === undefined) throw new Refused('missing_expiry', 'token has no exp');
  return expiresAt;
}

/** A NumericDate in milliseconds since the epoch, when it is there; throws MalformedError. */
export function parseTime(seconds: unknown, name: string): number | undefined {
  if (seconds === undefined) return undefined;
  if (typeof seconds !== 'number' || !(seconds >= 0 && seconds <= maxSeconds)) {
    throw new Refused('malformed', `token has an ${name} that is no time`);
  }
  return Math.floor(seconds * 1000);
}

function decodeObject(part: string, what: string): JsonObject {
  const bytes = decodeBase64url(part, what);
  try {
    return parseJsonObject(utf8.decode(bytes), what);
  } catch {
    throw new Refused('malformed', `${what} is not a JSON object`);
  }
}

/** Only the one text that encodes these bytes: no padding, no line breaks, no stray bits at the end. */
function decodeBase64url(part: string, what: string): Buffer {
  const bytes = base64url.test(part) ? Buffer.from(part, 'base64url') : undefined;
  if (bytes?.toString('base64url') !== part) throw new Refused('malformed', `${what} is not base64url`);
  return bytes;
}
