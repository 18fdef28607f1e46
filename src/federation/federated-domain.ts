import type { Sleep } from '../runtime/abort.ts';
import { AbortedError, type AppError, messageOf, toAppError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { X509BundleSet } from '../spiffe/bundle.ts';
import { type BundleDocument, parseBundleDocument } from '../spiffe/bundle-document.ts';
import type { TrustDomain } from '../spiffe/spiffe-id.ts';
import type { TrustStore } from '../trust/store.ts';
import type { BundleFiles } from './bundle-files.ts';
import type { FederationEntry } from './federation-entry.ts';
import { bootstrapOf, endpointDomainOf, fetchBundle } from './fetch-bundle.ts';
import type { BundleOrigin, FederationMeter } from './meter.ts';
import { type BundleRefusal, refusalOf, SequenceRollbackError } from './refusal.ts';

/** What is known of a federated trust domain's bundle. */
export type FederatedState = Readonly<{
  /** Undefined while no bundle is held. */
  origin: BundleOrigin | undefined;
  sequence: bigint | undefined;
  refreshHintS: number | undefined;
  /** When the endpoint last gave a good bundle, in milliseconds since the epoch. */
  fetchedAt: number | undefined;
  /** Why the bundle held is not up to date; undefined when the last fetch was good. */
  lastError: string | undefined;
}>;

/** The bundle of one federated trust domain, for as long as that is federated with. */
export interface FederatedDomain {
  /** Puts in force, once, what is known before the endpoint has been asked: the bundle on disk, else the bootstrap one. */
  seed(entry: FederationEntry): Promise<void>;
  /** Asks the endpoint of `entry` again and again until `signal` fires, then rejects with AbortedError. */
  follow(entry: FederationEntry, signal: AbortSignal): Promise<never>;
  state(): FederatedState;
  /** Ends trust in the domain and drops what was kept of it. */
  forget(): Promise<void>;
}

export type FederatedDomainDeps = Readonly<{
  store: Pick<TrustStore, 'apply' | 'current' | 'changes'>;
  /** Undefined: bundles are forgotten when the process ends. */
  files: BundleFiles | undefined;
  now: () => number;
  sleep: Sleep;
  random: () => number;
  log: Logger;
  meter: FederationMeter;
}>;

const defaultHintMs = 300_000;
const minHintMs = 1_000;
const maxHintMs = 86_400_000;

/** The time to the next fetch (SPIFFE Federation §6.2): the hint within 1 s and 24 h, 5 min without one, ± 10 %. */
export function pollDelayMs(refreshHintS: number | undefined, random: () => number): number {
  const hintMs =
    refreshHintS === undefined || refreshHintS === 0
      ? defaultHintMs
      : Math.min(maxHintMs, Math.max(minHintMs, refreshHintS * 1000));
  return Math.round(hintMs * (0.9 + 0.2 * random()));
}

/** What is kept between fetches, and across changes of the entry. */
type Held = {
  origin: BundleOrigin | undefined;
  document: BundleDocument | undefined;
  /** The highest that was ever taken: a bundle without one does not open the door to older ones. */
  sequence: bigint | undefined;
  savedText: string | undefined;
  fetchedAt: number | undefined;
  problem: Readonly<{ reason: BundleRefusal | 'waiting'; message: string }> | undefined;
};

/**
 * Keeps the store supplied with the bundle of one trust domain: at once what is on disk or in the bootstrap file, then
 * what the endpoint says. Whatever goes wrong, the last good bundle stays in force and the next attempt is at the next
 * interval; an empty bundle is no fault, it ends trust.
 */
export function createFederatedDomain(trustDomain: TrustDomain, deps: FederatedDomainDeps): FederatedDomain {
  const { store, files, now, sleep, random, log, meter } = deps;
  const held: Held = {
    origin: undefined,
    document: undefined,
    sequence: undefined,
    savedText: undefined,
    fetchedAt: undefined,
    problem: undefined,
  };

  function take(document: BundleDocument, origin: BundleOrigin): void {
    const { sequence, x509, jwt } = document;
    if (sequence !== undefined && held.sequence !== undefined && sequence < held.sequence) {
      throw new SequenceRollbackError(
        `bundle of trust domain ${trustDomain} has sequence ${sequence}, older than ${held.sequence} which is held`,
      );
    }
    const outcome = store.apply({ kind: 'federated', document: { trustDomain, x509, jwt } });
    held.document = document;
    held.sequence = sequence ?? held.sequence;
    held.origin = origin;
    meter.taken(trustDomain, origin, outcome);
    if (outcome === 'unchanged') return;
    const authorities = { x509: x509.authorities.length, jwt: jwt.authorities.length };
    log.info(
      { trustDomain, origin, sequence: sequence?.toString(), ...authorities },
      'federated bundle taken',
    );
    if (authorities.x509 + authorities.jwt === 0) {
      log.warn({ trustDomain, origin }, 'federated bundle is empty: nobody of this trust domain is trusted');
    }
  }

  function refuse(error: AppError): void {
    const reason = refusalOf(error);
    meter.refused(trustDomain, reason);
    const fields = { trustDomain, reason, error: error.message };
    if (held.problem?.reason === reason) log.debug(fields, 'federated bundle refused again');
    else log.warn(fields, 'federated bundle refused; the last good one stays');
    held.problem = { reason, message: error.message };
  }

  let seeded = false;
  async function seed(entry: FederationEntry): Promise<void> {
    if (seeded) return;
    seeded = true;
    try {
      const saved = await files?.load(trustDomain);
      if (saved !== undefined) {
        take(parseBundleDocument(saved.text, trustDomain), 'persisted');
        held.savedText = saved.text;
        held.fetchedAt = saved.savedAt;
        meter.fetched(trustDomain, saved.savedAt);
        return;
      }
    } catch (error) {
      log.warn({ trustDomain, error: messageOf(error) }, 'bundle on disk cannot be used');
    }
    const vouching = endpointDomainOf(entry);
    if (vouching !== undefined && vouching !== trustDomain) return;
    try {
      const bootstrap = bootstrapOf(entry);
      if (bootstrap !== undefined) take(bootstrap, 'bootstrap');
    } catch (error) {
      refuse(toAppError(error));
    }
  }

  /** What an https_spiffe endpoint is verified against: what is held of its trust domain, else the bootstrap bundle. */
  function vouchers(entry: FederationEntry): X509BundleSet {
    const vouching = endpointDomainOf(entry);
    const { bundles } = store.current();
    if (vouching === undefined || bundles.has(vouching)) return bundles;
    const bootstrap = bootstrapOf(entry);
    return bootstrap === undefined ? bundles : new Map([[vouching, bootstrap.x509]]);
  }

  /** An endpoint of another trust domain can only be asked once the bundle of that domain has come. */
  async function untilVouched(entry: FederationEntry, signal: AbortSignal): Promise<void> {
    const vouching = endpointDomainOf(entry);
    if (vouching === undefined) return;
    for await (const _ of store.changes(signal)) {
      if (vouchers(entry).has(vouching)) return;
      if (held.problem?.reason === 'waiting') continue;
      const message = `no bundle of trust domain ${vouching}, which the endpoint is of, is held yet`;
      held.problem = { reason: 'waiting', message };
      log.warn({ trustDomain, endpointTrustDomain: vouching }, 'bundle endpoint must wait');
    }
    throw new AbortedError();
  }

  async function save(text: string): Promise<void> {
    if (files === undefined || text === held.savedText) return;
    try {
      await files.save(trustDomain, text);
      held.savedText = text;
    } catch (error) {
      log.error({ trustDomain, error: messageOf(error) }, 'federated bundle cannot be kept on disk');
    }
  }

  async function fetchOnce(entry: FederationEntry, signal: AbortSignal): Promise<void> {
    try {
      const { document, text } = await fetchBundle(entry, { bundles: () => vouchers(entry), now }, signal);
      take(document, 'endpoint');
      held.fetchedAt = now();
      meter.fetched(trustDomain, held.fetchedAt);
      if (held.problem !== undefined) log.info({ trustDomain }, 'bundle endpoint answers again');
      held.problem = undefined;
      await save(text);
    } catch (error) {
      if (signal.aborted) throw new AbortedError();
      refuse(toAppError(error));
    }
  }

  async function follow(entry: FederationEntry, signal: AbortSignal): Promise<never> {
    await seed(entry);
    for (;;) {
      await untilVouched(entry, signal);
      await fetchOnce(entry, signal);
      await sleep(pollDelayMs(held.document?.refreshHintS, random), signal);
    }
  }

  async function forget(): Promise<void> {
    store.apply({ kind: 'federated_removed', trustDomain });
    meter.removed(trustDomain);
    log.info({ trustDomain }, 'federation ended: what its bundle endpoint said no longer counts');
    try {
      await files?.remove(trustDomain);
    } catch (error) {
      log.error({ trustDomain, error: messageOf(error) }, 'federated bundle cannot be removed from disk');
    }
  }

  return Object.freeze({
    seed,
    follow,
    forget,
    state: () =>
      Object.freeze({
        origin: held.origin,
        sequence: held.document?.sequence,
        refreshHintS: held.document?.refreshHintS,
        fetchedAt: held.fetchedAt,
        lastError: held.problem?.message,
      }),
  });
}
