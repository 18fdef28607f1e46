import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type IdentityRules, judgePeer } from '../../../src/extauthz/identity-rules.ts';
import { noPeer, type Peer, peerOf } from '../../../src/extauthz/peer/peer.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { identities } from './harness.ts';

const own = parseTrustDomain('example.org');
const partner = parseTrustDomain('partner.example');

function rules(parts: Partial<IdentityRules> = {}): IdentityRules {
  return { requirePeer: true, denied: identities(), ...parts };
}

function peer(id: string): Peer {
  return peerOf(parseSpiffeId(id), 'mtls', false);
}

function verdict(parts: Partial<IdentityRules>, id: string): string {
  return judgePeer(rules(parts), peer(id), own)?.reasonCode ?? 'pass';
}

test('by default every identity of the own trust domain passes, and no other', () => {
  assert.equal(verdict({}, 'spiffe://example.org/a'), 'pass');
  assert.equal(verdict({}, 'spiffe://partner.example/a'), 'foreign_trust_domain');
  assert.equal(verdict({}, 'spiffe://example.org.evil/a'), 'foreign_trust_domain');
});

test('while no identity is held, nobody is of the own trust domain', () => {
  assert.equal(
    judgePeer(rules(), peer('spiffe://example.org/a'), undefined)?.reasonCode,
    'foreign_trust_domain',
  );
});

test('allowed identities replace the default', () => {
  const allowed = identities('spiffe://partner.example/x/*');
  assert.equal(verdict({ allowed }, 'spiffe://example.org/a'), 'identity_not_allowed');
  assert.equal(verdict({ allowed }, 'spiffe://partner.example/x/1'), 'pass');
  assert.equal(verdict({ allowed }, 'spiffe://partner.example/y'), 'identity_not_allowed');
  assert.equal(verdict({ allowed }, 'spiffe://other.example/x/1'), 'foreign_trust_domain');
});

test('an empty list of allowed identities admits nobody', () => {
  assert.equal(verdict({ allowed: identities() }, 'spiffe://example.org/a'), 'identity_not_allowed');
});

test('a federated domain is judged by its own entry alone', () => {
  const federated = new Map([[partner, identities('spiffe://partner.example/agents/*')]]);
  assert.equal(verdict({ federated }, 'spiffe://partner.example/agents/1'), 'pass');
  const allowed = identities('spiffe://partner.example/*', 'spiffe://example.org/*');
  assert.equal(verdict({ federated, allowed }, 'spiffe://partner.example/x'), 'identity_not_allowed');
  assert.equal(verdict({ federated, allowed }, 'spiffe://example.org/x'), 'pass');
});

test('a federation entry without allowed identities admits nobody', () => {
  const federated = new Map([[partner, identities()]]);
  assert.equal(verdict({ federated }, 'spiffe://partner.example/a'), 'identity_not_allowed');
});

test('the denied list wins over everything that admits', () => {
  const denied = identities('spiffe://example.org/bad', 'spiffe://partner.example/agents/*/bad');
  const allowed = identities('spiffe://example.org/*');
  const federated = new Map([[partner, identities('spiffe://partner.example/*')]]);
  assert.equal(verdict({ denied, allowed }, 'spiffe://example.org/bad'), 'identity_denied');
  assert.equal(verdict({ denied, allowed }, 'spiffe://example.org/bad/not'), 'pass');
  assert.equal(verdict({ denied, federated }, 'spiffe://partner.example/agents/7/bad'), 'identity_denied');
  assert.equal(verdict({ denied, federated }, 'spiffe://partner.example/agents/7'), 'pass');
});

test('a peer without an identity is refused, or left to the policy when none is required', () => {
  assert.equal(judgePeer(rules(), noPeer, own)?.reasonCode, 'no_peer_identity');
  assert.equal(judgePeer(rules({ requirePeer: false }), noPeer, own), undefined);
});

test('the ID of a trust domain itself is matched by no pattern', () => {
  assert.equal(
    verdict({ allowed: identities('spiffe://example.org/*') }, 'spiffe://example.org'),
    'identity_not_allowed',
  );
});
