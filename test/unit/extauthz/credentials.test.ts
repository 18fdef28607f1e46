import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { createCredentials, type InjectRule } from '../../../src/extauthz/credentials.ts';
import { reasonCodeOf } from '../../../src/extauthz/outcome.ts';
import { compileRequestRules } from '../../../src/policy/request-rules.ts';
import { AppError } from '../../../src/runtime/errors.ts';
import type { JwtSvidKey } from '../../../src/tokens/cache-entries.ts';
import {
  answering,
  api,
  type CheckerParts,
  checkOnce,
  createTrust,
  failing,
  functionEngine,
  getRequest,
  type Trust,
  tcpConnection,
} from './harness.ts';

type Mint = (key: JwtSvidKey, signal: AbortSignal) => Promise<string>;

const rule = (changed: Partial<InjectRule> = {}): InjectRule => ({
  match: {},
  header: 'authorization',
  scheme: 'Bearer',
  audience: 'billing',
  ...changed,
});
const named: Mint = ({ audience, spiffeId }) => Promise.resolve(`${spiffeId} for ${audience}`);
const refusing: Mint = () => Promise.reject(new AppError('permission_denied', 'no identity issued'));

describe('a JWT-SVID that is injected', () => {
  let trust: Trust;

  before(async () => {
    trust = await createTrust();
  });

  function check(
    rules: readonly InjectRule[],
    parts: CheckerParts & { mint?: Mint; hint?: string; request?: ReturnType<typeof getRequest> } = {},
  ) {
    const { mint = named, hint, request = getRequest(), ...rest } = parts;
    const credentials = createCredentials({
      rules: compileRequestRules(rules, 'ext_authz.inject_jwt_svid'),
      mint,
      defaultSvidHint: hint,
    });
    return checkOnce(trust, { credentials, ...rest }, request);
  }
  const credentialsOf = ({ outcome }: Awaited<ReturnType<typeof check>>) =>
    outcome.kind === 'allowed' || outcome.kind === 'lifted' ? outcome.credentials : undefined;

  it('is of the default identity and the audience of the rule, behind its scheme', async () => {
    const trace = await check([rule(), rule({ header: 'x-audit', scheme: '', audience: 'audit' })]);
    assert.deepEqual(credentialsOf(trace), [
      { name: 'authorization', value: `Bearer ${api} for billing` },
      { name: 'x-audit', value: `${api} for audit` },
    ]);
  });

  it('is the first of several for one header', async () => {
    const trace = await check([rule({ audience: 'first' }), rule({ audience: 'second' })]);
    assert.deepEqual(credentialsOf(trace), [{ name: 'authorization', value: `Bearer ${api} for first` }]);
  });

  it('goes only into requests that the rule fits, and that are let through', async () => {
    const elsewhere = [rule({ match: { path: '/other/*' } })];
    assert.equal(credentialsOf(await check(elsewhere)), undefined);
    let minted = 0;
    const counting: Mint = (key, signal) => {
      minted += 1;
      return named(key, signal);
    };
    const denied = await check([rule()], { engine: answering(false), mint: counting });
    assert.equal(denied.outcome.kind, 'denied');
    const byPeer = await check([rule({ match: { peer: 'spiffe://example.org/service/web' } })]);
    assert.equal(credentialsOf(byPeer)?.length, 1);
    assert.equal(minted, 0);
  });

  it('goes also into what dry-run lets through', async () => {
    for (const engine of [answering(false), failing('engine_unavailable')]) {
      const trace = await check([rule()], { engine, dryRun: true });
      assert.equal(trace.outcome.kind, 'lifted');
      assert.equal(credentialsOf(trace)?.length, 1);
    }
  });

  for (const dryRun of [false, true]) {
    it(`that cannot be had is a denial${dryRun ? ', under dry-run, too' : ''}`, async () => {
      const trace = await check([rule()], { mint: refusing, dryRun });
      assert.equal(trace.outcome.kind, 'refused');
      assert.equal(reasonCodeOf(trace.outcome), 'token_unavailable');
      const hanging = await check([rule()], { mint: () => new Promise(() => {}), timeoutMs: 10, dryRun });
      assert.equal(reasonCodeOf(hanging.outcome), 'token_unavailable');
    });
  }

  it('that one of two cannot be had is a denial', async () => {
    const mint: Mint = (key, signal) => (key.audience === 'audit' ? refusing : named)(key, signal);
    const trace = await check([rule(), rule({ header: 'x-audit', audience: 'audit' })], { mint });
    assert.equal(reasonCodeOf(trace.outcome), 'token_unavailable');
  });

  it('that is held is given although the engine took all the time that dry-run forgives', async () => {
    const engine = functionEngine(() => new Promise(() => {}));
    const trace = await check([rule()], { engine, timeoutMs: 10, dryRun: true });
    assert.equal(trace.outcome.kind, 'lifted');
    assert.equal(credentialsOf(trace)?.length, 1);
  });

  it('needs a default SVID; with a hint that none has there is none', async () => {
    const trace = await check([rule()], { hint: 'nobody' });
    assert.equal(reasonCodeOf(trace.outcome), 'token_unavailable');
  });

  it('leaves no way around its rule by another spelling of the path', async () => {
    const rules = [rule({ match: { path: '/v1/*' } })];
    const trace = await check(rules, { request: getRequest({ path: '/x/../v1/balances' }) });
    assert.equal(reasonCodeOf(trace.outcome), 'unsafe_path');
  });

  it('is nothing for a TCP connection', async () => {
    const trace = await check([rule()], { request: tcpConnection(), mint: refusing });
    assert.equal(trace.outcome.kind, 'allowed');
    assert.equal(credentialsOf(trace), undefined);
  });
});
