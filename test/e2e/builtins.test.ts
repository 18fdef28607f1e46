import assert from 'node:assert/strict';
import { constants, createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { test } from 'node:test';
import { canonical, sameValue, type Value } from '../../src/policy/builtins/value.ts';
import { evaluateWithBoth } from './both-engines.ts';
import { builtinCases } from './builtin-cases.ts';

test('built-ins give what OPA gives, and are undefined where OPA is', async (t) => {
  const rules = builtinCases.map((expression, index) => `results["${index}"] := ${expression}`);
  const policy = ['package cases', ...rules].join('\n\n');
  const {
    ours: [ours],
    theirs,
  } = await evaluateWithBoth(t, policy, makeInput());

  assert.ok(builtinCases.length >= 200);
  assert.ok(theirs.size > builtinCases.length / 2, 'OPA gave hardly any result');
  const differences = builtinCases.flatMap((expression, index) => {
    const [mine, expected] = [ours?.get(String(index)), theirs.get(String(index))];
    const same = mine === undefined || expected === undefined ? mine === expected : sameValue(mine, expected);
    return same ? [] : [`${expression}\n  ours: ${show(mine)}\n  OPA:  ${show(expected)}`];
  });
  assert.deepEqual(differences, [], differences.join('\n'));
});

function show(value: Value | undefined): string {
  return value === undefined ? 'undefined' : canonical(value);
}

function makeInput(): object {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const otherRsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const ec = {
    '256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    '384': generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    '512': generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  };
  const otherEc = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ed = generateKeyPairSync('ed25519');
  const secret = 'a secret of the test';
  const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }) as string;
  const claims = { iss: 'us', aud: 'me', sub: 'é', exp: 1_750_000_000, nbf: 1_650_000_000, big: 1e15 + 0.5 };

  const tokens: Record<string, string> = {};
  const keys: Record<string, string> = {};
  for (const size of ['256', '384', '512'] as const) {
    const hash = `sha${size}`;
    const withRsa = (padding: number) => (data: Buffer) =>
      sign(hash, data, { key: rsa.privateKey, padding, saltLength: constants.RSA_PSS_SALTLEN_DIGEST });
    tokens[`RS${size}`] = token(claims, { alg: `RS${size}` }, withRsa(constants.RSA_PKCS1_PADDING));
    tokens[`PS${size}`] = token(claims, { alg: `PS${size}` }, withRsa(constants.RSA_PKCS1_PSS_PADDING));
    tokens[`ES${size}`] = token(claims, { alg: `ES${size}`, kid: `e${size}` }, (data) =>
      sign(hash, data, { key: ec[size].privateKey, dsaEncoding: 'ieee-p1363' }),
    );
    tokens[`HS${size}`] = token(claims, { alg: `HS${size}` }, mac(hash, secret));
    keys[`RS${size}`] = keys[`PS${size}`] = pem(rsa.publicKey);
    keys[`ES${size}`] = pem(ec[size].publicKey);
    keys[`HS${size}`] = secret;
  }
  const signEd = (data: Buffer): Buffer => sign(null, data, ed.privateKey);
  const rs256 = tokens['RS256'] ?? '';
  const hs256 = mac('sha256', secret);
  return {
    number: 5,
    half: 1.5,
    nothing: [],
    // Shortly before clocks are put forward or back; whole numbers that a double holds exactly.
    moments: [
      [1_711_832_400_000_000_000, 'Europe/Berlin'],
      [1_711_762_200_000_000_000, 'Europe/Berlin'],
      [1_730_597_400_000_000_000, 'America/New_York'],
    ],
    mixed: ['a', 1],
    queries: { a: [1] },
    keys: {
      ...keys,
      EdDSA: pem(ed.publicKey),
      jwks: JSON.stringify({
        keys: [
          { ...rsa.publicKey.export({ format: 'jwk' }), alg: 'RS256' },
          { ...ec['256'].publicKey.export({ format: 'jwk' }), kid: 'e256' },
        ],
      }),
    },
    others: {
      RS: pem(otherRsa.publicKey),
      PS: pem(otherRsa.publicKey),
      ES: pem(otherEc.publicKey),
      HS: 'other',
    },
    tokens: {
      ...tokens,
      EdDSA: token(claims, { alg: 'EdDSA' }, signEd),
      nested: token(rs256, { alg: 'HS256', cty: 'JWT' }, hs256),
      tampered: rs256.replace(/\.[^.]*\./, `.${Buffer.from('{"aud":"me"}').toString('base64url')}.`),
      none: `${Buffer.from('{"alg":"none"}').toString('base64url')}.e30.`,
      confused: token(claims, { alg: 'HS256' }, mac('sha256', pem(rsa.publicKey))),
      critical: token({}, { alg: 'HS256', crit: ['b64'], b64: true }, hs256),
      textual: token({ exp: 'never' }, { alg: 'HS256' }, hs256),
      audiences: token({ aud: ['a', 'b'] }, { alg: 'HS256' }, hs256),
    },
  };
}

function mac(hash: string, secret: string): (data: Buffer) => Buffer {
  return (data) => createHmac(hash, secret).update(data).digest();
}

function token(payload: unknown, header: object, signing: (data: Buffer) => Buffer): string {
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${encode(header)}.${encode(payload)}`;
  return `${signed}.${signing(Buffer.from(signed)).toString('base64url')}`;
}
