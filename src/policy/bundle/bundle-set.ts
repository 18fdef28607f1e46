import { type AppError, MalformedError, toAppError } from '../../runtime/errors.ts';
import type { Bundle } from './bundle.ts';
import { checkOverlap } from './roots.ts';

/** What is known of one bundle, for people and for records. */
export type BundleState = Readonly<{
  name: string;
  /** The manifest's revision of the version in force, else its digest; empty when none is in force. */
  revision: string;
  digest: string;
  /** What is wrong with the newest version, even while an older one is in force. */
  problem: string | undefined;
  /** When the version in force came into force, in milliseconds since the epoch. */
  activatedAt: number | undefined;
}>;

/** A bundle of the set that is to come into force. */
export type NamedBundle = Readonly<{ name: string; bundle: Bundle }>;

export type BundleSetOptions = Readonly<{
  names: readonly string[];
  /** Puts the bundles into force together; rejects, with nothing changed, when that cannot be. */
  activate: (bundles: readonly NamedBundle[], signal: AbortSignal) => Promise<void>;
  /** A bundle's version has come into force. */
  onActivated: (name: string) => void;
  /** Milliseconds since the epoch. */
  now: () => number;
}>;

/**
 * The versions of several bundles that are only ever in force together. Not for calls that overlap: the caller hands one
 * version in after the other.
 */
export interface BundleSet {
  /** What a delta of this bundle changes: the newest version that was not refused. */
  base(name: string): Bundle | undefined;
  /**
   * Takes a good version of a bundle. Tells whether it is in force or waits for a first version of other bundles; rejects
   * with the reason when it cannot be in force with the others, which stay as they are. Such a version is not forgotten: it
   * gets another chance with the next version of another bundle, so what changes in two bundles can come one after the
   * other.
   */
  offer(name: string, bundle: Bundle, signal: AbortSignal): Promise<'active' | 'waiting'>;
  /** Nothing good came. */
  fail(name: string, error: AppError): void;
  states(): readonly BundleState[];
}

type Slot = {
  readonly name: string;
  inForce: Bundle | undefined;
  /** Newer than what is in force. */
  next: Readonly<{ bundle: Bundle; refused: boolean }> | undefined;
  problem: string | undefined;
  activatedAt: number | undefined;
};

export function createBundleSet({ names, activate, onActivated, now }: BundleSetOptions): BundleSet {
  const slots = new Map(
    names.map((name): [string, Slot] => [
      name,
      { name, inForce: undefined, next: undefined, problem: 'not loaded yet', activatedAt: undefined },
    ]),
  );

  function slotOf(name: string): Slot {
    const slot = slots.get(name);
    if (slot === undefined) throw new RangeError(`no bundle is named ${name}`);
    return slot;
  }

  /** Puts one version of each bundle into force, where `pick` says which; undefined for a bundle without any. */
  async function tryWith(
    pick: (slot: Slot) => Bundle | undefined,
    signal: AbortSignal,
  ): Promise<'active' | 'waiting'> {
    const picked = [...slots.values()].map((slot) => ({ slot, bundle: pick(slot) }));
    const bundles = picked.flatMap(({ slot: { name }, bundle }) =>
      bundle === undefined ? [] : [{ name, bundle }],
    );
    checkOverlap(bundles.map(({ name, bundle }) => ({ name, roots: bundle.manifest.roots })));
    if (bundles.length < slots.size) return 'waiting';
    if (bundles.every(({ bundle: { modules } }) => modules.length === 0)) {
      const what = slots.size === 1 ? 'bundle has' : 'none of the bundles has a';
      throw new MalformedError(`${what} no policy.wasm; build it with opa build -t wasm -e DECISION/PATH`);
    }
    await activate(bundles, signal);
    for (const { slot, bundle } of picked) {
      const changed = slot.inForce !== bundle;
      if (slot.next?.bundle === bundle) {
        slot.next = undefined;
        slot.problem = undefined;
      }
      slot.inForce = bundle;
      if (!changed) continue;
      slot.activatedAt = now();
      onActivated(slot.name);
    }
    return 'active';
  }

  const accepted = ({ next, inForce }: Slot): Bundle | undefined =>
    next?.refused === false ? next.bundle : inForce;
  const newest = (slot: Slot): Bundle | undefined => slot.next?.bundle ?? slot.inForce;

  return Object.freeze({
    base(name: string) {
      return accepted(slotOf(name));
    },
    async offer(name: string, bundle: Bundle, signal: AbortSignal) {
      const slot = slotOf(name);
      const held = accepted(slot);
      // A file that was only touched; a delta in it has been applied already.
      if (held?.file === bundle.file) {
        if (held === slot.inForce) slot.next = undefined;
        slot.problem = undefined;
        return held === slot.inForce ? 'active' : 'waiting';
      }
      slot.next = { bundle, refused: false };
      const alone = [...slots.values()].every((other) => other === slot || other.next === undefined);
      try {
        const outcome = await tryWith(newest, signal).catch((error: unknown) => {
          if (alone || signal.aborted) throw error;
          // The fault may be that of another bundle whose newest version was refused before.
          return tryWith((other) => (other === slot ? bundle : (other.inForce ?? newest(other))), signal);
        });
        if (outcome === 'waiting') slot.problem = undefined;
        return outcome;
      } catch (error) {
        slot.next = { bundle, refused: true };
        slot.problem = toAppError(error).message;
        throw error;
      }
    },
    fail(name: string, { message }: AppError) {
      const slot = slotOf(name);
      slot.problem = message;
      if (slot.next?.refused === true) slot.next = undefined;
    },
    states: () =>
      [...slots.values()].map(({ name, inForce, problem, activatedAt }) =>
        Object.freeze({
          name,
          revision: inForce === undefined ? '' : revisionOf(inForce),
          digest: inForce?.digest ?? '',
          problem,
          activatedAt,
        }),
      ),
  });
}

/** The manifest's revision, else the digest. */
export function revisionOf({ manifest, digest }: Bundle): string {
  return manifest.revision === '' ? digest : manifest.revision;
}
