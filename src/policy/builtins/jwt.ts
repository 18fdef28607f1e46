import { type Builtin, type Builtins, object, refuse, text } from './args.ts';
import { algorithms, readKeys, type VerificationKey, verifies, verifiesHmac } from './jwt-keys.ts';
import { compareValues, isExact, numberOf, numberText, parseJson, type Value } from './value.ts';

type Claims = ReadonlyMap<Value, Value>;
type Token = Readonly<{ signed: string; header: Claims; payload: string; signature: string }>;

const maxNesting = 16;
const maxKeySets = 100;
const unverified: Value = [false, new Map(), new Map()];
const named = ['alg', 'kid', 'typ', 'cty'];
const understood: ReadonlySet<string> = new Set([...named, 'crit']);

/** `io.jwt.*` but signing; tokens in JWS compact serialization. */
export function createJwtBuiltins(): Builtins {
  const keySets = new Map<string, readonly VerificationKey[]>();

  function keysOf(written: string): readonly VerificationKey[] {
    const held = keySets.get(written);
    if (held !== undefined) return held;
    const keys = readKeys(written);
    if (keySets.size >= maxKeySets) keySets.clear();
    keySets.set(written, keys);
    return keys;
  }

  const verifyBuiltin =
    (alg: string): Builtin =>
    (args) => {
      const parts = sections(text(args, 0));
      const written = text(args, 1);
      if (alg.startsWith('HS')) {
        const [head, payload, signature] = parts;
        return verifiesHmac(Buffer.from(written), alg, `${head}.${payload}`, decodeBytes(signature));
      }
      const keys = keysOf(written);
      const token = readToken(parts);
      const header = checkedHeader(token);
      const signature = decodeBytes(token.signature);
      return select(keys, header).some((key) => verifies(key, alg, token.signed, signature, true));
    };

  return {
    'io.jwt.decode': (args) => decode(text(args, 0)),
    'io.jwt.decode_verify': (args, { nowNs }) => {
      const constraints = readConstraints(object(args, 1), nowNs);
      return decodeVerify(text(args, 0), constraints);
    },
    ...Object.fromEntries(
      [...algorithms].map((alg) => [`io.jwt.verify_${alg.toLowerCase()}`, verifyBuiltin(alg)] as const),
    ),
  };

  function readConstraints(given: Claims, nowNs: bigint): Constraints {
    let keys: readonly VerificationKey[] | undefined;
    let time: Value = numberOf(String(nowNs));
    const texts: Record<string, string> = {};
    for (const [name, value] of given) {
      if (name === 'time') {
        time = value;
      } else if (typeof name === 'string' && ['cert', 'secret', 'alg', 'iss', 'aud'].includes(name)) {
        if (typeof value !== 'string') return refuse(`constraint ${name} must be a string`);
        texts[name] = value;
        if (name === 'cert') keys = keysOf(value);
      } else {
        return refuse('constraint is unknown');
      }
    }
    const ns = Number(numberText(time) ?? refuse('constraint time must be a number'));
    if (!(ns >= 0)) return refuse('constraint time must not be negative');
    const { secret = '', alg = '', iss = '', aud = '' } = texts;
    if ((keys === undefined) === (secret === '')) return refuse('exactly one of cert and secret is needed');
    return { keys, secret, alg, iss, aud, seconds: ns / 1e9 };
  }
}

type Constraints = Readonly<{
  keys: readonly VerificationKey[] | undefined;
  secret: string;
  alg: string;
  iss: string;
  aud: string;
  seconds: number;
}>;

/** The key with the token's `kid`, else those that may be of its algorithm. */
function select(keys: readonly VerificationKey[], header: Claims): readonly VerificationKey[] {
  const kid = header.get('kid') ?? '';
  const byKid = kid === '' ? undefined : keys.find((key) => key.kid === kid);
  if (byKid !== undefined) return [byKid];
  return keys.filter(({ alg }) => alg === '' || alg === header.get('alg'));
}

function sections(token: string): readonly [string, string, string] {
  const [head, payload, signature, ...more] = token.split('.');
  if (head === undefined || payload === undefined || signature === undefined || more.length > 0) {
    return refuse('token does not have three sections');
  }
  return [head, payload, signature];
}

function decodeBytes(section: string): Buffer {
  const plain = section.replace(/={1,2}$/, '');
  if (!/^[\w-]*$/.test(plain) || plain.length % 4 === 1) return refuse('token is not base64url');
  if (plain !== section && section.length % 4 !== 0) return refuse('token is not base64url');
  return Buffer.from(plain, 'base64url');
}

function jsonObject(written: string): Claims {
  const value = parseJson(written);
  return value instanceof Map ? (value as Claims) : refuse('token holds no JSON object');
}

function readToken([head, payload, signature]: readonly [string, string, string]): Token {
  const header = jsonObject(decodeBytes(head).toString('utf8'));
  if (header.has('enc')) return refuse('encrypted tokens are not supported');
  return { signed: `${head}.${payload}`, header, payload, signature };
}

function checkedHeader({ header }: Token): Claims {
  for (const name of named) {
    const value = header.get(name);
    if (value !== undefined && typeof value !== 'string')
      return refuse(`${name} of a token must be a string`);
  }
  const critical = header.get('crit');
  if (
    critical !== undefined &&
    (!Array.isArray(critical) || !critical.some((one) => typeof one === 'string'))
  ) {
    return refuse('crit of a token must be a list of names');
  }
  return header;
}

function memberOf(header: Claims, name: string): string {
  const value = header.get(name);
  return typeof value === 'string' ? value : '';
}

/** With an algorithm, and without a critical member that nobody here understands. */
function isUsable(header: Claims): boolean {
  if (memberOf(header, 'alg') === '') return false;
  const critical = (header.get('crit') ?? []) as readonly Value[];
  return [...header.keys()].every(
    (name) => (typeof name === 'string' && understood.has(name)) || !critical.includes(name),
  );
}

function decode(written: string): Value {
  let token = readToken(sections(written));
  for (let depth = 0; token.header.get('cty') === 'JWT'; depth++) {
    if (depth >= maxNesting) return refuse('token is nested too deeply');
    const inner = decodeBytes(token.payload)
      .toString('utf8')
      .replace(/^["']+|["']+$/g, '');
    token = readToken(sections(inner));
  }
  const payload = jsonObject(decodeBytes(token.payload).toString('utf8'));
  return [token.header, payload, decodeBytes(token.signature).toString('hex')];
}

function decodeVerify(written: string, constraints: Constraints): Value {
  let inner = written;
  for (let depth = 0; depth < maxNesting; depth++) {
    const token = readToken(sections(inner));
    const header = checkedHeader(token);
    if (!isUsable(header)) return unverified;
    const alg = memberOf(header, 'alg');
    if (constraints.alg !== '' && constraints.alg !== alg) return unverified;
    if (!isSigned(token, alg, constraints)) return unverified;
    const payload = decodeBytes(token.payload).toString('utf8');
    if (memberOf(header, 'cty').toLowerCase() !== 'jwt') {
      const claims = jsonObject(payload);
      return isAcceptable(claims, constraints) ? [true, header, claims] : unverified;
    }
    inner = payload;
  }
  return refuse('token is nested too deeply');
}

function isSigned(token: Token, alg: string, { keys, secret }: Constraints): boolean {
  const signature = decodeBytes(token.signature);
  if (!algorithms.has(alg)) return false;
  if (keys === undefined) {
    return alg.startsWith('HS') && verifiesHmac(Buffer.from(secret), alg, token.signed, signature);
  }
  return select(keys, token.header).some((key) => verifies(key, alg, token.signed, signature, false));
}

function isAcceptable(claims: Claims, { iss, aud, seconds }: Constraints): boolean {
  if (iss !== '' && claims.get('iss') !== iss) return false;
  const audience = claims.get('aud');
  if (audience === undefined ? aud !== '' : !holds(audience, aud)) return false;
  const now = numberOf(String(seconds));
  const time = (name: string): Value | undefined => {
    const value = claims.get(name);
    if (value === undefined || typeof value === 'number' || isExact(value)) return value;
    return refuse(`${name} of a token must be a number`);
  };
  const [expiry, notBefore] = [time('exp'), time('nbf')];
  if (expiry !== undefined && compareValues(now, expiry) >= 0) return false;
  return notBefore === undefined || compareValues(now, notBefore) >= 0;
}

function holds(audience: Value, wanted: string): boolean {
  return audience === wanted || (Array.isArray(audience) && audience.includes(wanted));
}
