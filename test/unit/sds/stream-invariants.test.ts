import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { initialDeltaState, stepDelta } from '../../../src/sds/delta-stream.ts';
import type { DeltaRequest } from '../../../src/sds/requests.ts';
import type { Catalog } from '../../../src/sds/resources.ts';
import { initialSotwState, stepSotw } from '../../../src/sds/sotw-stream.ts';
import type { StreamSettings } from '../../../src/sds/stream.ts';
import { literalCatalog, unreadyCatalog } from './literal-catalog.ts';

const settings: StreamSettings = { spiffeValidator: true, unknownNames: 'wait', maxNames: 20 };
const web = 'spiffe://example.org/web';
const own = 'spiffe://example.org';
const names = fc.constantFrom('default', 'ROOTCA', 'ALL', web, own, 'nonsense');
const someNames = fc.array(names, { maxLength: 4 });
const content = fc.dictionary(
  fc.constantFrom('default', 'ROOTCA', 'ALL', web, own),
  fc.constantFrom('1', '2', '3'),
);
const nonce = fc.constantFrom('last', 'last', 'last', 'stale', '');
const refusal = fc.constantFrom(undefined, undefined, 'no good');

type World = Readonly<Record<string, string>>;
const worldEvent = fc.record({ kind: fc.constant('world' as const), content });

const sotwEvents = fc.array(
  fc.oneof(worldEvent, fc.record({ kind: fc.constant('ask' as const), names: someNames, nonce, refusal })),
  { minLength: 1, maxLength: 30 },
);

test('a state-of-the-world client always ends up with what is known of its names, and hears nothing twice', () => {
  let answers = 0;
  fc.assert(
    fc.property(sotwEvents, fc.boolean(), (events, startsReady) => {
      let catalog: Catalog = startsReady ? literalCatalog({}) : unreadyCatalog;
      let world: World = {};
      let state = initialSotwState('s', settings);
      let asked: { everything: boolean; names: Set<string> } | undefined;
      const client = new Map<string, string>();
      const nonces = new Set<string>();
      let lastNonce: string | undefined;

      for (const event of events) {
        if (event.kind === 'world') {
          world = event.content;
          catalog = literalCatalog(world);
        }
        const isAsk = event.kind === 'ask';
        const sentNonce = isAsk && event.nonce === 'last' ? (lastNonce ?? '') : isAsk ? event.nonce : '';
        const stale = isAsk && lastNonce !== undefined && sentNonce !== lastNonce;
        if (isAsk && !stale) {
          const everything = event.names.length === 0 && (asked === undefined || asked.everything);
          asked = { everything, names: new Set(event.names) };
          for (const name of client.keys()) if (!everything && !asked.names.has(name)) client.delete(name);
        }
        const request = isAsk
          ? { node: undefined, names: event.names, nonce: sentNonce, refusal: event.refusal }
          : undefined;
        const step =
          request === undefined
            ? stepSotw(state, { kind: 'snapshot', catalog, now: 0 })
            : stepSotw(state, { kind: 'request', request, catalog, now: 0 });
        state = step.state;
        assert.equal(step.fail, undefined);
        if (stale) assert.equal(step.send, undefined);

        if (step.send !== undefined) {
          answers += 1;
          const sent = step.send.resources;
          assert.ok(asked !== undefined && sent.length > 0);
          assert.equal(new Set(sent.map(({ name }) => name)).size, sent.length, 'a name twice');
          assert.ok(!nonces.has(step.send.nonce), 'a nonce twice');
          const news = sent.some(({ name, version }) => client.get(name) !== version);
          assert.ok(isAsk || news || sent.length < client.size, 'the same content pushed again');
          for (const { name, kind } of sent) {
            const wanted = asked.everything
              ? kind === 'spiffe_id' || kind === 'trust_domain'
              : asked.names.has(name);
            assert.ok(wanted, `${name} was not asked for`);
          }
          client.clear();
          for (const { name, version } of sent) client.set(name, version);
          nonces.add(step.send.nonce);
          lastNonce = step.send.nonce;
        }
        const wanted = asked?.everything === true ? [web, own] : [...(asked?.names ?? [])];
        for (const name of wanted) {
          if (world[name] !== undefined)
            assert.equal(client.get(name), world[name], `${name} is missing or old`);
        }
      }
    }),
    { numRuns: 1000 },
  );
  assert.ok(answers > 100);
});

const deltaEvents = fc.array(
  fc.oneof(
    worldEvent,
    fc.record({
      kind: fc.constant('ask' as const),
      subscribe: fc.array(fc.oneof(names, fc.constant('*')), { maxLength: 3 }),
      unsubscribe: fc.array(fc.oneof(names, fc.constant('*')), { maxLength: 2 }),
      held: content,
      nonce,
      refusal,
    }),
  ),
  { minLength: 1, maxLength: 30 },
);

test('a delta client always knows of each of its names what it is or that it is not, and hears nothing twice', () => {
  let answers = 0;
  fc.assert(
    fc.property(deltaEvents, fc.boolean(), (events, startsReady) => {
      let catalog: Catalog = startsReady ? literalCatalog({}) : unreadyCatalog;
      let world: World = {};
      let state = initialDeltaState('s', settings);
      let everything = false;
      const asked = new Set<string>();
      /** undefined stands for "told that there is none". */
      const client = new Map<string, string | undefined>();
      const nonces = new Set<string>();
      let lastNonce = '';
      let first = true;
      // What was asked again before anything was known is owed until then.
      let settled = false;

      const covers = (name: string) => asked.has(name) || (everything && (name === web || name === own));

      for (const event of events) {
        if (event.kind === 'world') {
          world = event.content;
          catalog = literalCatalog(world);
        }
        let request: DeltaRequest | undefined;
        const owed = new Set<string>();
        if (event.kind === 'ask') {
          const { subscribe, unsubscribe } = event;
          if (first && subscribe.length === 0) everything = true;
          if (subscribe.includes('*')) everything = true;
          for (const name of subscribe) if (name !== '*') asked.add(name);
          for (const name of unsubscribe) asked.delete(name);
          if (unsubscribe.includes('*')) everything = false;
          if (first) {
            for (const [name, version] of Object.entries(event.held))
              if (covers(name)) client.set(name, version);
          } else {
            for (const name of subscribe) if (asked.has(name)) owed.add(name);
          }
          for (const name of client.keys()) if (!covers(name)) client.delete(name);
          request = {
            node: undefined,
            subscribe,
            unsubscribe,
            initialVersions: new Map(Object.entries(event.held)),
            nonce: event.nonce === 'last' ? lastNonce : event.nonce,
            refusal: event.refusal,
          };
          first = false;
        }
        const step =
          request === undefined
            ? stepDelta(state, { kind: 'snapshot', catalog, now: 0 })
            : stepDelta(state, { kind: 'request', request, catalog, now: 0 });
        state = step.state;

        if (step.send !== undefined) {
          answers += 1;
          const { resources, removed } = step.send;
          const spoken = [...resources.map(({ name }) => name), ...removed];
          assert.ok(catalog.ready && spoken.length > 0);
          assert.equal(new Set(spoken).size, spoken.length, 'a name twice');
          assert.ok(!nonces.has(step.send.nonce), 'a nonce twice');
          for (const { name, version } of resources) {
            assert.ok(covers(name), `${name} was not asked for`);
            if (request === undefined && settled)
              assert.notEqual(client.get(name), version, `${name} pushed again unchanged`);
            client.set(name, version);
          }
          for (const name of removed) {
            if (request === undefined)
              assert.ok(!client.has(name) || client.get(name) !== undefined, `${name} removed twice`);
            if (asked.has(name)) client.set(name, undefined);
            else client.delete(name);
          }
          for (const name of owed) assert.ok(spoken.includes(name), `${name} was asked for and not answered`);
          nonces.add(step.send.nonce);
          lastNonce = step.send.nonce;
        } else if (catalog.ready) {
          assert.equal(owed.size, 0, 'a subscribe without an answer');
        }
        settled = catalog.ready;
        if (!settled) continue;
        for (const name of asked) {
          assert.ok(client.has(name), `nothing was said of ${name}`);
          assert.equal(client.get(name), world[name]);
        }
        if (everything) for (const name of [web, own]) assert.equal(client.get(name), world[name]);
      }
    }),
    { numRuns: 1000 },
  );
  assert.ok(answers > 100);
});
