import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type DeltaAnswer, initialDeltaState, stepDelta } from '../../../src/sds/delta-stream.ts';
import type { EnvoyNode } from '../../../src/sds/node.ts';
import type { DeltaRequest } from '../../../src/sds/requests.ts';
import type { Catalog } from '../../../src/sds/resources.ts';
import type { Note } from '../../../src/sds/stream.ts';
import { literalCatalog, unreadyCatalog } from './literal-catalog.ts';

const own = 'spiffe://example.org';
const web = 'spiffe://example.org/web';
const partner = 'spiffe://partner.example';
const first = literalCatalog({ default: 'd1', ROOTCA: 'r1', ALL: 'all1', [web]: 'w1', [own]: 'o1' });
const node: EnvoyNode = {
  id: 'envoy-1',
  cluster: 'web',
  spiffeValidator: undefined,
  supportsSpiffeValidator: true,
};

type Said = Readonly<{ sent?: readonly string[]; removed?: readonly string[] }>;

/** Plays one stream: what it says is `name@version` for the sent and plain names for the removed. */
function play(options: { catalog?: Catalog; unknownNames?: 'wait' | 'reject'; now?: number } = {}) {
  let catalog = options.catalog ?? first;
  let state = initialDeltaState('s', {
    spiffeValidator: true,
    unknownNames: options.unknownNames ?? 'wait',
    maxNames: 50,
  });
  let last: DeltaAnswer | undefined;
  let notes: readonly Note[] = [];
  let fail: string | undefined;
  let now = options.now ?? 0;

  function take(step: ReturnType<typeof stepDelta>): Said | undefined {
    state = step.state;
    notes = step.notes;
    fail = step.fail?.message;
    if (step.send === undefined) return undefined;
    last = step.send;
    const sent = step.send.resources.map(({ name, version }) => `${name}@${version}`);
    const { removed } = step.send;
    return { ...(sent.length > 0 ? { sent } : {}), ...(removed.length > 0 ? { removed } : {}) };
  }

  function ask(request: Partial<DeltaRequest>): Said | undefined {
    const complete = {
      node: undefined,
      subscribe: [],
      unsubscribe: [],
      initialVersions: new Map<string, string>(),
      nonce: '',
      refusal: undefined,
      ...request,
    };
    return take(stepDelta(state, { kind: 'request', request: complete, catalog, now }));
  }

  return {
    ask,
    subscribe: (...names: readonly string[]) => ask({ subscribe: names }),
    unsubscribe: (...names: readonly string[]) => ask({ unsubscribe: names }),
    ack: (nonce = last?.nonce ?? '') => ask({ nonce }),
    nack: (refusal: string, nonce = last?.nonce ?? '') => ask({ nonce, refusal }),
    change(next: Catalog = catalog) {
      catalog = next;
      return take(stepDelta(state, { kind: 'snapshot', catalog, now }));
    },
    /** The next request meets this catalog before the stream hears of the change. */
    meets(next: Catalog) {
      catalog = next;
    },
    at(time: number) {
      now = time;
    },
    last: () => last,
    notes: () => notes,
    failure: () => fail,
    reply: () => state.last?.reply,
  };
}

describe('a delta stream', () => {
  test('answers the names of a first request, each resource with its own version', () => {
    assert.deepEqual(play().subscribe('default', 'ROOTCA', 'default'), { sent: ['ROOTCA@r1', 'default@d1'] });
  });

  test('sends only what has changed', () => {
    const stream = play();
    stream.subscribe('default', 'ROOTCA');
    assert.equal(stream.ack(), undefined);
    assert.deepEqual(stream.change(literalCatalog({ default: 'd2', ROOTCA: 'r1', [web]: 'w2' })), {
      sent: ['default@d2'],
    });
    assert.equal(stream.change(), undefined);
  });

  test('answers an added name alone', () => {
    const stream = play();
    stream.subscribe('default');
    assert.deepEqual(stream.subscribe('ROOTCA'), { sent: ['ROOTCA@r1'] });
  });

  test('gives each answer a nonce of its own', () => {
    const stream = play();
    stream.subscribe('default');
    const before = stream.last()?.nonce;
    stream.subscribe('ROOTCA');
    assert.notEqual(stream.last()?.nonce, before);
  });

  describe('with a name that is not known', () => {
    test('says at once that it is removed, and pushes it when it appears', () => {
      const stream = play();
      assert.deepEqual(stream.subscribe(partner, 'default'), { sent: ['default@d1'], removed: [partner] });
      assert.equal(stream.change(), undefined);
      assert.deepEqual(stream.change(literalCatalog({ default: 'd1', [partner]: 'p1' })), {
        sent: [`${partner}@p1`],
      });
    });

    test('says nothing before it knows anything, and then everything that is due', () => {
      const stream = play({ catalog: unreadyCatalog });
      assert.equal(stream.subscribe(partner, 'default'), undefined);
      assert.deepEqual(stream.change(first), { sent: ['default@d1'], removed: [partner] });
    });

    test('notes it once', () => {
      const stream = play();
      stream.subscribe(partner);
      assert.deepEqual(stream.notes(), [
        { kind: 'unanswered', name: partner, nameKind: 'trust_domain', reason: 'unknown' },
      ]);
      stream.subscribe(partner);
      assert.deepEqual(stream.notes(), []);
    });

    test('ends when told to reject, but not before it knows anything', () => {
      const stream = play({ unknownNames: 'reject', catalog: unreadyCatalog });
      stream.subscribe(partner);
      assert.equal(stream.failure(), undefined);
      stream.change(first);
      assert.match(
        stream.failure() ?? '',
        /^workload is not authorized .* \["spiffe:\/\/partner\.example"\]$/,
      );
    });
  });

  describe('whose resource goes away', () => {
    test('is told once that it is removed, and gets it when it comes back', () => {
      const stream = play();
      stream.subscribe('default', 'ROOTCA');
      assert.deepEqual(stream.change(literalCatalog({ ROOTCA: 'r1' })), { removed: ['default'] });
      assert.equal(stream.change(), undefined);
      assert.deepEqual(stream.change(first), { sent: ['default@d1'] });
    });

    const gone = literalCatalog({ default: 'd1', [partner]: { version: 'nobody', gone: true } });

    test('gets a bundle that nothing satisfies first, the removal after its reply', () => {
      for (const reply of ['ack', 'nack'] as const) {
        const stream = play({ catalog: literalCatalog({ [partner]: 'p1' }) });
        stream.subscribe(partner);
        stream.ack();
        assert.deepEqual(stream.change(gone), { sent: [`${partner}@nobody`] });
        assert.equal(stream.change(), undefined);
        const said = reply === 'ack' ? stream.ack() : stream.nack('no');
        assert.deepEqual(said, { removed: [partner] });
        assert.equal(stream.ack(), undefined);
        assert.equal(stream.change(), undefined);
        assert.deepEqual(stream.change(literalCatalog({ [partner]: 'p2' })), { sent: [`${partner}@p2`] });
      }
    });

    test('is told of its return even between the two', () => {
      const stream = play({ catalog: literalCatalog({ [partner]: 'p1' }) });
      stream.subscribe(partner);
      stream.change(gone);
      assert.deepEqual(stream.change(literalCatalog({ [partner]: 'p1' })), { sent: [`${partner}@p1`] });
      assert.equal(stream.ack(), undefined);
    });

    test('as a newcomer is only told of the removal', () => {
      assert.deepEqual(play({ catalog: gone }).subscribe(partner), { removed: [partner] });
    });

    test('that still holds the old bundle after a reconnect loses it in the same two steps', () => {
      const stream = play({ catalog: gone });
      const said = stream.ask({ subscribe: [partner], initialVersions: new Map([[partner, 'p1']]) });
      assert.deepEqual(said, { sent: [`${partner}@nobody`] });
      assert.deepEqual(stream.ack(), { removed: [partner] });
    });

    test('that already holds the unsatisfiable one after a reconnect is told of the removal', () => {
      const stream = play({ catalog: gone });
      const said = stream.ask({ subscribe: [partner], initialVersions: new Map([[partner, 'nobody']]) });
      assert.deepEqual(said, { removed: [partner] });
    });
  });

  describe('that reconnects', () => {
    const held = new Map([
      ['default', 'd1'],
      ['ROOTCA', 'r0'],
      [partner, 'p1'],
    ]);

    test('is sent what differs from what it holds, and told what is no more', () => {
      const stream = play();
      const said = stream.ask({ subscribe: ['default', 'ROOTCA', partner], initialVersions: held });
      assert.deepEqual(said, { sent: ['ROOTCA@r1'], removed: [partner] });
    });

    test('is sent nothing when it holds everything', () => {
      const stream = play();
      assert.equal(
        stream.ask({ subscribe: ['default'], initialVersions: new Map([['default', 'd1']]) }),
        undefined,
      );
      assert.deepEqual(stream.change(literalCatalog({ default: 'd2' })), { sent: ['default@d2'] });
    });

    test('before anything is known is compared later', () => {
      const stream = play({ catalog: unreadyCatalog });
      stream.ask({ subscribe: ['default', 'ROOTCA'], initialVersions: held });
      assert.deepEqual(stream.change(first), { sent: ['ROOTCA@r1'] });
    });

    test('is not believed about names it does not subscribe to', () => {
      assert.deepEqual(play().ask({ subscribe: ['default'], initialVersions: held }), undefined);
    });

    test('is only believed in its first request', () => {
      const stream = play();
      stream.subscribe('default');
      assert.deepEqual(stream.ask({ subscribe: ['ROOTCA'], initialVersions: new Map([['ROOTCA', 'r1']]) }), {
        sent: ['ROOTCA@r1'],
      });
    });

    test('with the wildcard is told of what is no more', () => {
      const stream = play();
      const said = stream.ask({
        initialVersions: new Map([
          [web, 'w1'],
          [partner, 'p1'],
        ]),
      });
      assert.deepEqual(said, { sent: [`${own}@o1`], removed: [partner] });
    });

    test('may bring a nonce of an earlier stream', () => {
      const stream = play();
      assert.deepEqual(stream.ask({ subscribe: ['default'], nonce: 'stale' }), { sent: ['default@d1'] });
      assert.deepEqual(stream.notes(), []);
    });
  });

  describe('that subscribes again', () => {
    test('is answered though it is believed to have the resource', () => {
      const stream = play();
      stream.subscribe('default');
      stream.ack();
      assert.deepEqual(stream.subscribe('default'), { sent: ['default@d1'] });
      assert.equal(stream.ack(), undefined);
    });

    test('to an unknown name is told again that it is removed', () => {
      const stream = play();
      stream.subscribe(partner);
      assert.deepEqual(stream.subscribe(partner), { removed: [partner] });
    });

    test('after letting go is answered', () => {
      const stream = play();
      stream.subscribe('default');
      assert.equal(stream.unsubscribe('default'), undefined);
      assert.equal(stream.change(literalCatalog({ default: 'd2' })), undefined);
      assert.deepEqual(stream.subscribe('default'), { sent: ['default@d2'] });
    });

    test('before anything is known is answered though its first request said it had it', () => {
      const stream = play({ catalog: unreadyCatalog });
      stream.ask({ subscribe: ['default'], initialVersions: new Map([['default', 'd1']]) });
      stream.subscribe('default');
      assert.deepEqual(stream.change(first), { sent: ['default@d1'] });
    });
  });

  describe('with the wildcard', () => {
    for (const [name, request] of [
      ['a star', { subscribe: ['*'] }],
      ['a first request without names', {}],
    ] as const) {
      test(`gets SVIDs by SPIFFE ID and bundles by trust domain for ${name}`, () => {
        const stream = play();
        assert.deepEqual(stream.ask(request), { sent: [`${own}@o1`, `${web}@w1`] });
        assert.equal(stream.ack(), undefined);
      });
    }

    test('is told of what appears and of what goes', () => {
      const stream = play();
      stream.ask({});
      assert.deepEqual(stream.change(literalCatalog({ [own]: 'o1', [partner]: 'p1' })), {
        sent: [`${partner}@p1`],
        removed: [web],
      });
      assert.equal(stream.change(), undefined);
    });

    test('gets an alias beside it when it asks for one, and each name once', () => {
      const stream = play();
      assert.deepEqual(stream.subscribe('*', 'ROOTCA', web), {
        sent: ['ROOTCA@r1', `${own}@o1`, `${web}@w1`],
      });
    });

    test('that lets go of a name hears what the wildcard says of it', () => {
      const stream = play();
      stream.subscribe('*', 'ROOTCA', web);
      assert.deepEqual(stream.unsubscribe('ROOTCA', web), { sent: [`${web}@w1`], removed: ['ROOTCA'] });
    });

    test('that lets go of the wildcard keeps its names only', () => {
      const stream = play();
      stream.subscribe('*', 'ROOTCA');
      assert.equal(stream.unsubscribe('*'), undefined);
      assert.deepEqual(stream.change(literalCatalog({ ROOTCA: 'r2', [web]: 'w2' })), { sent: ['ROOTCA@r2'] });
    });

    test('that asks for it again is sent everything again, and told what went meanwhile', () => {
      const stream = play({ catalog: literalCatalog({ [web]: 'w1', [partner]: 'p1' }) });
      stream.subscribe('*');
      assert.deepEqual(stream.subscribe('*'), { sent: [`${web}@w1`, `${partner}@p1`] });
      stream.meets(literalCatalog({ [web]: 'w1' }));
      assert.deepEqual(stream.subscribe('*'), { sent: [`${web}@w1`], removed: [partner] });
    });

    test('is not told of an expired SVID that it never had', () => {
      const stream = play({
        catalog: literalCatalog({ [web]: { version: 'w1', expiresAt: 5 }, [own]: 'o1' }),
        now: 6,
      });
      assert.deepEqual(stream.ask({}), { sent: [`${own}@o1`] });
      assert.equal(stream.change(), undefined);
    });

    test('loses trust that has gone in two steps', () => {
      const stream = play({ catalog: literalCatalog({ [partner]: 'p1' }) });
      stream.ask({});
      stream.ack();
      assert.deepEqual(stream.change(literalCatalog({ [partner]: { version: 'nobody', gone: true } })), {
        sent: [`${partner}@nobody`],
      });
      assert.deepEqual(stream.ack(), { removed: [partner] });
      assert.equal(stream.ack(), undefined);
      assert.equal(stream.change(), undefined);
    });
  });

  describe('that replies', () => {
    test('is understood for each of several answers on the way', () => {
      const stream = play();
      stream.subscribe('default');
      const one = stream.last()?.nonce ?? '';
      stream.subscribe('ROOTCA');
      const two = stream.last()?.nonce ?? '';
      stream.nack('no good', one);
      assert.deepEqual(
        stream.notes().map((note) => (note.kind === 'nack' ? [note.message, note.names] : note.kind)),
        [['no good', [{ name: 'default', kind: 'default_svid' }]]],
      );
      stream.ack(two);
      assert.deepEqual(
        stream.notes().map(({ kind }) => kind),
        ['ack'],
      );
      assert.deepEqual(stream.reply(), { kind: 'acked' });
    });

    test('never gets a refused version again, but new content', () => {
      const stream = play();
      stream.subscribe('default');
      assert.equal(stream.nack('no'), undefined);
      assert.deepEqual(stream.reply(), { kind: 'nacked', message: 'no' });
      assert.equal(stream.change(), undefined);
      assert.deepEqual(stream.change(literalCatalog({ default: 'd2' })), { sent: ['default@d2'] });
    });

    test('with a stale nonce is not counted, but its change of subscription is taken', () => {
      const stream = play();
      stream.subscribe('default');
      const said = stream.ask({
        nonce: 'stale',
        refusal: 'no',
        subscribe: ['ROOTCA'],
        unsubscribe: ['default'],
      });
      assert.deepEqual(said, { sent: ['ROOTCA@r1'] });
      assert.deepEqual(stream.notes(), [{ kind: 'stale_nonce', nonce: 'stale' }]);
      assert.equal(stream.change(literalCatalog({ default: 'd2', ROOTCA: 'r1' })), undefined);
    });

    test('twice with one nonce is stale the second time', () => {
      const stream = play();
      stream.subscribe('default');
      const nonce = stream.last()?.nonce ?? '';
      stream.ack(nonce);
      stream.ack(nonce);
      assert.deepEqual(stream.notes(), [{ kind: 'stale_nonce', nonce }]);
    });
  });

  describe('whose SVID has expired while its source is away', () => {
    const catalog = literalCatalog({ default: { version: 'd1', expiresAt: 100 }, ROOTCA: 'r1' });

    test('keeps it', () => {
      const stream = play({ catalog });
      stream.subscribe('default');
      stream.at(101);
      assert.equal(stream.change(), undefined);
    });

    test('is not given it as a newcomer, nor upon asking again', () => {
      const stream = play({ catalog, now: 101 });
      assert.deepEqual(stream.subscribe('default'), { removed: ['default'] });
      const holder = play({ catalog });
      holder.subscribe('default');
      holder.at(101);
      assert.deepEqual(holder.subscribe('default'), { removed: ['default'] });
    });
  });

  test('is sent each renewal of a JWT-SVID, never an expired one, and none by the wildcard', () => {
    const jwt = (version: string, expiresAt: number) =>
      literalCatalog({ 'jwt:billing': { version, expiresAt }, [own]: 'o1' });
    const stream = play({ catalog: jwt('j1', 100) });
    assert.deepEqual(stream.subscribe('*'), { sent: [`${own}@o1`] });
    assert.deepEqual(stream.subscribe('jwt:billing'), { sent: ['jwt:billing@j1'] });
    assert.deepEqual(stream.change(jwt('j2', 200)), { sent: ['jwt:billing@j2'] });
    stream.at(200);
    assert.deepEqual(stream.change(), { removed: ['jwt:billing'] });
  });

  test('is sent its bundles anew when its Node changes the validator', () => {
    const stream = play({
      catalog: literalCatalog({ ROOTCA: 'validator', ALL: 'all' }, { ROOTCA: 'plain' }),
    });
    assert.deepEqual(stream.ask({ subscribe: ['ROOTCA', 'ALL'], node }), {
      sent: ['ALL@all', 'ROOTCA@validator'],
    });
    assert.deepEqual(stream.ask({ node: { ...node, spiffeValidator: false } }), {
      sent: ['ROOTCA@plain'],
      removed: ['ALL'],
    });
  });
});
