import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonical, sameValue, type Value } from '../../src/policy/builtins/value.ts';
import { evaluateWithBoth } from './both-engines.ts';
import {
  certificateCases,
  chainCases,
  keyPairCases,
  privateKeyCases,
  requestCases,
  uriCases,
} from './x509-cases.ts';

const policy = `package cases

results.certificates := {name: parsed | some name; parsed := crypto.x509.parse_certificates(input.certificates[name])}

results.verified := {name: chain | some name; chain := crypto.x509.parse_and_verify_certificates(input.chains[name].text)}

results.with_options := {name: chain |
  some name
  {"text": text, "options": options} = input.chains[name]
  chain := crypto.x509.parse_and_verify_certificates_with_options(text, options)
}

results.requests := {name: parsed | some name; parsed := crypto.x509.parse_certificate_request(input.requests[name])}

results.keys := {name: parsed | some name; parsed := crypto.parse_private_keys(input.keys[name])}

results.jwks := {name: parsed | some name; parsed := crypto.x509.parse_rsa_private_key(input.keys[name])}

results.pairs := {name: parsed | some name; [one, other] = input.pairs[name]; parsed := crypto.x509.parse_keypair(one, other)}

results.uris := {written: parsed | some written in input.uris; parsed := uri.parse(written)}

results.uris_valid := {written: valid | some written in input.uris; valid := uri.is_valid(written)}
`;

test('certificates, keys and URIs give what OPA gives, and are undefined where OPA is', async (t) => {
  const input = {
    certificates: certificateCases(),
    chains: chainCases(),
    requests: requestCases(),
    keys: privateKeyCases(),
    pairs: keyPairCases(),
    uris: uriCases(),
  };
  const pieces = Object.entries(input).flatMap(([family, cases]) =>
    piecesOf(cases).map((piece) => ({ ...nothing, [family]: piece })),
  );
  const { ours, theirs } = await evaluateWithBoth(t, policy, input, pieces);

  const differences = [...theirs.keys()].flatMap((family) => {
    const mine: Results = new Map(ours.flatMap((results) => [...(results.get(family) as Results)]));
    const expected = theirs.get(family) as Results;
    assert.ok(expected.size > 3, `OPA gave hardly any result of ${canonical(family)}`);
    const names = [...new Set([...mine.keys(), ...expected.keys()])];
    return names.flatMap((name) => {
      const [one, other] = [mine.get(name), expected.get(name)];
      const same = one === undefined || other === undefined ? one === other : sameValue(one, other);
      return same ? [] : [`${canonical(family)} ${canonical(name)}${difference(one, other)}`];
    });
  });
  assert.deepEqual(differences, [], differences.join('\n'));
});

const nothing = { certificates: {}, chains: {}, requests: {}, keys: {}, pairs: {}, uris: [] };
const pieceSize = 100;

function piecesOf(cases: readonly unknown[] | Readonly<Record<string, unknown>>): readonly unknown[] {
  const entries = Object.entries(cases);
  const starts = Array.from(
    { length: Math.ceil(entries.length / pieceSize) },
    (_, index) => index * pieceSize,
  );
  return starts.map((start) => {
    const some = entries.slice(start, start + pieceSize);
    return Array.isArray(cases) ? some.map(([, value]) => value) : Object.fromEntries(some);
  });
}

type Results = ReadonlyMap<Value, Value>;

/** The first place where they differ. */
function difference(one: Value | undefined, other: Value | undefined): string {
  if (one === undefined || other === undefined) return `: ours ${brief(one)}, OPA's ${brief(other)}`;
  if (Array.isArray(one) && Array.isArray(other) && one.length === other.length) {
    const at = one.findIndex((value: Value, index) => !sameValue(value, other[index] as Value));
    return ` [${at}]${difference(one[at] as Value, other[at] as Value)}`;
  }
  if (one instanceof Map && other instanceof Map) {
    for (const key of new Set([...(one as Results).keys(), ...(other as Results).keys()])) {
      const [mine, expected] = [(one as Results).get(key), (other as Results).get(key)];
      if (mine === undefined || expected === undefined || !sameValue(mine, expected)) {
        return ` ${canonical(key)}${difference(mine, expected)}`;
      }
    }
  }
  return `: ours ${brief(one)}, OPA's ${brief(other)}`;
}

function brief(value: Value | undefined): string {
  return value === undefined ? 'undefined' : canonical(value).slice(0, 200);
}
