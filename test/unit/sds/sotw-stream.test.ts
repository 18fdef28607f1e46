import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { EnvoyNode } from '../../../src/sds/node.ts';
import type { SotwRequest } from '../../../src/sds/requests.ts';
import type { Catalog } from '../../../src/sds/resources.ts';
import { initialSotwState, type SotwAnswer, stepSotw } from '../../../src/sds/sotw-stream.ts';
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

/** Plays one stream: what it sends is `name@version` by name. */
function play(options: { catalog?: Catalog; unknownNames?: 'wait' | 'reject'; now?: number } = {}) {
  let catalog = options.catalog ?? first;
  let state = initialSotwState('s', {
    spiffeValidator: true,
    unknownNames: options.unknownNames ?? 'wait',
    maxNames: 10,
  });
  let now = options.now ?? 0;
  let last: SotwAnswer | undefined;
  let notes: readonly Note[] = [];
  let fail: string | undefined;

  function take(step: ReturnType<typeof stepSotw>): readonly string[] | undefined {
    state = step.state;
    notes = step.notes;
    fail = step.fail?.message;
    if (step.send !== undefined) last = step.send;
    return step.send?.resources.map(({ name, version }) => `${name}@${version}`);
  }

  return {
    /** A request with the last nonce unless told otherwise. */
    ask(names: readonly string[], request: Partial<SotwRequest> = {}) {
      const complete = { node: undefined, names, nonce: last?.nonce ?? '', refusal: undefined, ...request };
      return take(stepSotw(state, { kind: 'request', request: complete, catalog, now }));
    },
    change(next: Catalog = catalog) {
      catalog = next;
      return take(stepSotw(state, { kind: 'snapshot', catalog, now }));
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

describe('a state-of-the-world stream', () => {
  test('answers a first request with what is known, sorted by name', () => {
    assert.deepEqual(play().ask(['default', 'ROOTCA']), ['ROOTCA@r1', 'default@d1']);
  });

  test('answers an alias and the name it stands for in one request', () => {
    assert.deepEqual(play().ask([own, 'ROOTCA', 'ALL', web, 'default']), [
      'ALL@all1',
      'ROOTCA@r1',
      'default@d1',
      `${own}@o1`,
      `${web}@w1`,
    ]);
  });

  test('sends nothing upon an ACK, and nothing when nothing has changed', () => {
    const stream = play();
    stream.ask(['default']);
    assert.equal(stream.ask(['default']), undefined);
    assert.deepEqual(
      stream.notes().map(({ kind }) => kind),
      ['ack'],
    );
    assert.deepEqual(stream.reply(), { kind: 'acked' });
    assert.equal(stream.change(), undefined);
  });

  test('counts one ACK for each answer, however many requests carry its nonce', () => {
    const stream = play();
    stream.ask(['default']);
    stream.ask(['default']);
    stream.ask(['default']);
    assert.deepEqual(stream.notes(), []);
  });

  test('pushes a change to a name it was asked for, with a new version and nonce', () => {
    const stream = play();
    stream.ask(['default']);
    const before = stream.last();
    stream.ask(['default']);
    assert.deepEqual(stream.change(literalCatalog({ default: 'd2', ROOTCA: 'r1' })), ['default@d2']);
    assert.notEqual(stream.last()?.version, before?.version);
    assert.notEqual(stream.last()?.nonce, before?.nonce);
  });

  test('sends nothing when only other names have changed', () => {
    const stream = play();
    stream.ask(['ROOTCA']);
    assert.equal(stream.change(literalCatalog({ default: 'd2', ROOTCA: 'r1', [web]: 'w2' })), undefined);
  });

  test('gives equal content an equal version in another stream, whatever the order of names', () => {
    const one = play();
    const other = play();
    one.ask(['default', 'ROOTCA']);
    other.ask(['ROOTCA', 'default', 'ROOTCA'], { nonce: 'from an earlier life' });
    assert.equal(one.last()?.version, other.last()?.version);
    const third = play();
    third.ask(['default']);
    assert.notEqual(third.last()?.version, one.last()?.version);
  });

  test('puts a name that was asked for twice once into the answer', () => {
    assert.deepEqual(play().ask(['default', 'default']), ['default@d1']);
  });

  describe('with a nonce', () => {
    test('takes a first request with the nonce of an earlier stream as a first request', () => {
      assert.deepEqual(play().ask(['default'], { nonce: 'stale' }), ['default@d1']);
    });

    test('takes any nonce while it has not sent anything yet', () => {
      const stream = play({ catalog: unreadyCatalog });
      stream.ask(['default'], { nonce: 'stale' });
      stream.ask(['default', 'ROOTCA'], { nonce: 'stale' });
      assert.deepEqual(stream.change(first), ['ROOTCA@r1', 'default@d1']);
    });

    for (const nonce of ['', 'stale']) {
      test(`ignores a request with the nonce "${nonce}" as a whole once it has sent an answer`, () => {
        const stream = play();
        stream.ask(['default']);
        assert.equal(stream.ask(['ROOTCA'], { nonce }), undefined);
        assert.deepEqual(stream.notes(), [{ kind: 'stale_nonce', nonce }]);
        assert.deepEqual(stream.reply(), { kind: 'pending' });
        assert.equal(stream.change(literalCatalog({ default: 'd1', ROOTCA: 'r2' })), undefined);
      });
    }

    test('takes the change of names that crossed a push from the reply to that push', () => {
      const stream = play();
      stream.ask(['default']);
      const nonce = stream.last()?.nonce ?? '';
      stream.change(literalCatalog({ default: 'd2', ROOTCA: 'r1' }));
      assert.equal(stream.ask(['default', 'ROOTCA'], { nonce }), undefined);
      assert.deepEqual(stream.ask(['default', 'ROOTCA']), ['ROOTCA@r1', 'default@d2']);
    });

    test('counts no NACK by a stale nonce', () => {
      const stream = play();
      stream.ask(['default']);
      stream.ask(['default'], { nonce: 'stale', refusal: 'no good' });
      assert.deepEqual(stream.notes(), [{ kind: 'stale_nonce', nonce: 'stale' }]);
    });
  });

  describe('upon a NACK', () => {
    test('notes it with its message and names, and sends nothing', () => {
      const stream = play();
      stream.ask(['default']);
      assert.equal(stream.ask(['default'], { refusal: 'key does not match' }), undefined);
      assert.deepEqual(stream.notes(), [
        {
          kind: 'nack',
          version: stream.last()?.version,
          names: [{ name: 'default', kind: 'default_svid' }],
          message: 'key does not match',
        },
      ]);
      assert.deepEqual(stream.reply(), { kind: 'nacked', message: 'key does not match' });
    });

    test('never sends the refused version again', () => {
      const stream = play();
      stream.ask(['default']);
      stream.ask(['default'], { refusal: 'no' });
      assert.equal(stream.ask(['default'], { refusal: 'no' }), undefined);
      assert.equal(stream.change(), undefined);
    });

    test('sends new content, and a return to the old one', () => {
      const stream = play();
      stream.ask(['default']);
      stream.ask(['default']);
      assert.deepEqual(stream.change(literalCatalog({ default: 'bad' })), ['default@bad']);
      stream.ask(['default'], { refusal: 'no' });
      assert.deepEqual(stream.change(first), ['default@d1']);
    });
  });

  describe('whose names change', () => {
    test('answers an added name', () => {
      const stream = play();
      stream.ask(['default']);
      assert.deepEqual(stream.ask(['default', 'ROOTCA']), ['ROOTCA@r1', 'default@d1']);
    });

    test('does not answer a dropped name', () => {
      const stream = play();
      stream.ask(['default', 'ROOTCA']);
      assert.equal(stream.ask(['default']), undefined);
      assert.equal(stream.change(), undefined);
    });

    test('answers one name replaced by another', () => {
      const stream = play();
      stream.ask(['default']);
      assert.deepEqual(stream.ask(['ROOTCA']), ['ROOTCA@r1']);
    });

    test('sends nothing when names are emptied, and nothing on later changes', () => {
      const stream = play();
      stream.ask(['default']);
      assert.equal(stream.ask([]), undefined);
      assert.equal(stream.change(literalCatalog({ default: 'd2', [web]: 'w2' })), undefined);
    });

    test('sends an emptied name anew when it comes back, though nothing has changed', () => {
      const stream = play();
      stream.ask(['default']);
      stream.ask([]);
      assert.deepEqual(stream.ask(['default']), ['default@d1']);
    });
  });

  describe('that names nothing', () => {
    test('gets SVIDs by SPIFFE ID and bundles by trust domain, and no alias', () => {
      const stream = play();
      assert.deepEqual(stream.ask([]), [`${own}@o1`, `${web}@w1`]);
      assert.equal(stream.ask([]), undefined);
    });

    test('gets what appears later', () => {
      const stream = play();
      stream.ask([]);
      assert.deepEqual(stream.change(literalCatalog({ [web]: 'w1', [own]: 'o1', [partner]: 'p1' })), [
        `${own}@o1`,
        `${web}@w1`,
        `${partner}@p1`,
      ]);
    });

    test('is not sent again what it already has when it starts to name', () => {
      const stream = play();
      stream.ask([]);
      assert.equal(stream.ask([web]), undefined);
      assert.deepEqual(stream.ask([web, 'default']), ['default@d1', `${web}@w1`]);
    });

    test('is told of the end of trust in a domain that it holds', () => {
      const stream = play({ catalog: literalCatalog({ [web]: 'w1', [partner]: 'p1' }) });
      stream.ask([]);
      const gone = literalCatalog({ [web]: 'w1', [partner]: { version: 'nobody', gone: true } });
      assert.deepEqual(stream.change(gone), [`${web}@w1`, `${partner}@nobody`]);
      assert.equal(stream.change(), undefined);
      assert.deepEqual(play({ catalog: gone }).ask([]), [`${web}@w1`]);
    });
  });

  describe('with a name that is not known', () => {
    test('waits in silence, without an empty answer, and pushes it when it appears', () => {
      const stream = play();
      assert.equal(stream.ask([partner]), undefined);
      assert.equal(stream.last(), undefined);
      assert.deepEqual(stream.change(literalCatalog({ [partner]: 'p1' })), [`${partner}@p1`]);
    });

    test('answers the known ones beside it, and all of them when it appears', () => {
      const stream = play();
      assert.deepEqual(stream.ask([partner, 'default']), ['default@d1']);
      assert.deepEqual(stream.change(literalCatalog({ default: 'd1', [partner]: 'p1' })), [
        'default@d1',
        `${partner}@p1`,
      ]);
    });

    test('notes it once', () => {
      const stream = play();
      stream.ask([partner]);
      assert.deepEqual(stream.notes(), [
        { kind: 'unanswered', name: partner, nameKind: 'trust_domain', reason: 'unknown' },
      ]);
      stream.change();
      assert.deepEqual(stream.notes(), []);
      stream.ask([partner, 'nonsense']);
      assert.deepEqual(stream.notes(), [
        { kind: 'unanswered', name: 'nonsense', nameKind: 'unknown', reason: 'unknown' },
      ]);
    });

    test('ends with the words of SPIRE when told to reject', () => {
      const stream = play({ unknownNames: 'reject' });
      assert.equal(stream.ask(['default', 'c', 'b']), undefined);
      assert.equal(stream.failure(), 'workload is not authorized for the requested identities ["b" "c"]');
    });

    test('rejects nothing before it knows anything, and then what it does not know', () => {
      const stream = play({ unknownNames: 'reject', catalog: unreadyCatalog });
      stream.ask(['default', 'b']);
      assert.equal(stream.failure(), undefined);
      assert.deepEqual(stream.notes(), []);
      assert.equal(stream.change(first), undefined);
      assert.match(stream.failure() ?? '', /\["b"\]$/);
    });

    test('keeps the rejection short however many names there are', () => {
      const stream = play({ unknownNames: 'reject' });
      stream.ask(Array.from({ length: 20 }, (_, i) => `name-${i}`));
      assert.equal(stream.failure()?.match(/"name-/g)?.length, 16);
      assert.match(stream.failure() ?? '', /\] and 4 more$/);
    });

    test('rejects ALL for an Envoy without the SPIFFE validator, and says why', () => {
      const catalog = literalCatalog({ ALL: 'all1' }, {});
      const stream = play({ unknownNames: 'reject', catalog });
      stream.ask(['ALL'], { node: { ...node, supportsSpiffeValidator: false } });
      assert.match(stream.failure() ?? '', /\["ALL"\]$/);
      assert.deepEqual(stream.notes(), [
        { kind: 'unanswered', name: 'ALL', nameKind: 'all_bundles', reason: 'needs_spiffe_validator' },
      ]);
    });
  });

  describe('whose SVID expires while its source is away', () => {
    const catalog = literalCatalog({ default: { version: 'd1', expiresAt: 100 }, ROOTCA: 'r1' });

    test('keeps it, and pushes other changes with it', () => {
      const stream = play({ catalog });
      stream.ask(['default', 'ROOTCA']);
      stream.at(101);
      assert.equal(stream.change(), undefined);
      const next = literalCatalog({ default: { version: 'd1', expiresAt: 100 }, ROOTCA: 'r2' });
      assert.deepEqual(stream.change(next), ['ROOTCA@r2', 'default@d1']);
    });

    test('is not given it as a newcomer, and gets it when it is renewed', () => {
      const stream = play({ catalog, now: 101 });
      assert.deepEqual(stream.ask(['default', 'ROOTCA']), ['ROOTCA@r1']);
      assert.deepEqual(stream.notes(), [
        { kind: 'unanswered', name: 'default', nameKind: 'default_svid', reason: 'expired' },
      ]);
      const renewed = literalCatalog({ default: { version: 'd2', expiresAt: 200 }, ROOTCA: 'r1' });
      assert.deepEqual(stream.change(renewed), ['ROOTCA@r1', 'default@d2']);
    });

    test('is not rejected for it', () => {
      const stream = play({ catalog, now: 101, unknownNames: 'reject' });
      stream.ask(['default']);
      assert.equal(stream.failure(), undefined);
    });
  });

  describe('with a JWT-SVID', () => {
    const jwt = (version: string, expiresAt: number, root = 'r1') =>
      literalCatalog({ 'jwt:billing': { version, expiresAt }, ROOTCA: root });

    test('is sent each renewal', () => {
      const stream = play({ catalog: jwt('j1', 100) });
      assert.deepEqual(stream.ask(['jwt:billing']), ['jwt:billing@j1']);
      assert.equal(stream.change(), undefined);
      assert.deepEqual(stream.change(jwt('j2', 200)), ['jwt:billing@j2']);
    });

    test('is never sent an expired one, though it holds it', () => {
      const stream = play({ catalog: jwt('j1', 100) });
      stream.ask(['jwt:billing', 'ROOTCA']);
      stream.at(100);
      assert.deepEqual(stream.change(jwt('j1', 100, 'r2')), ['ROOTCA@r2']);
    });

    test('waits for the first one, also when unknown names are rejected', () => {
      const stream = play({ catalog: first, unknownNames: 'reject' });
      assert.equal(stream.ask(['jwt:billing']), undefined);
      assert.deepEqual(stream.notes(), [
        { kind: 'unanswered', name: 'jwt:billing', nameKind: 'jwt_svid', reason: 'not_issued' },
      ]);
      assert.equal(stream.failure(), undefined);
      assert.deepEqual(stream.change(jwt('j1', 100)), ['jwt:billing@j1']);
    });

    test('is rejected for an audience that is not configured', () => {
      const stream = play({ catalog: first, unknownNames: 'reject' });
      stream.ask(['jwt:other']);
      assert.match(stream.failure() ?? '', /not authorized/);
    });

    test('is not given it by asking for everything', () => {
      const stream = play({ catalog: jwt('j1', 100) });
      assert.equal(stream.ask([]), undefined);
    });
  });

  test('keeps what it has when its SVID is withdrawn, and is not sent the same again', () => {
    const stream = play();
    stream.ask(['default']);
    assert.equal(stream.change(literalCatalog({ ROOTCA: 'r1' })), undefined);
    assert.equal(stream.change(first), undefined);
    assert.deepEqual(stream.change(literalCatalog({ default: 'd2' })), ['default@d2']);
  });

  describe('with a Node', () => {
    const catalog = literalCatalog({ ROOTCA: 'validator' }, { ROOTCA: 'plain' });

    test('remembers the one of the first request', () => {
      const stream = play({ catalog });
      assert.deepEqual(stream.ask(['ROOTCA'], { node: { ...node, spiffeValidator: false } }), [
        'ROOTCA@plain',
      ]);
      assert.equal(stream.ask(['ROOTCA']), undefined);
      assert.equal(stream.change(), undefined);
    });

    test('takes another one when it is sent again', () => {
      const stream = play({ catalog });
      assert.deepEqual(stream.ask(['ROOTCA'], { node }), ['ROOTCA@validator']);
      assert.deepEqual(stream.ask(['ROOTCA'], { node: { ...node, spiffeValidator: false } }), [
        'ROOTCA@plain',
      ]);
    });
  });
});
