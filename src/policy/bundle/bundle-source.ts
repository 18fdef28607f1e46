import type { KeyObject } from 'node:crypto';
import { AppError } from '../../runtime/errors.ts';

/** Where one bundle comes from. */
export interface BundleSource {
  /** The bundle's name, of which the engine has no second. */
  readonly name: string;
  /** A file or a URL, for people. */
  readonly location: string;
  /**
   * Hands each version to the handler, one at a time, until `signal` fires. A version that was refused is offered again
   * by the source's own rules: a file when it changes, a service at the next poll.
   */
  follow(handler: BundleHandler, signal: AbortSignal): Promise<void>;
}

/** Whom a source hands what it gets. */
export interface BundleHandler {
  /**
   * Fulfilled when the version is in force, or good and waiting for the other bundles; rejects with an AppError when it
   * is refused.
   */
  take(version: BundleVersion): Promise<TakenBundle>;
  /** Nothing could be got; the version before stays. */
  failed(error: AppError): void;
}

/** One version of a bundle, of which nothing is known to be right yet. */
export type BundleVersion = Readonly<{
  /** The archive, gzip around tar; it stays as it is while and after the handler has it. */
  bytes: Buffer;
  /** What it has to be signed by; undefined: it must not be signed. */
  key: KeyObject | undefined;
  /** Whether it is known to be about the version before; else only a snapshot is taken. */
  mayBeDelta: boolean;
}>;

/** What a version has turned out to be. */
export type TakenBundle = Readonly<{
  /** Only a snapshot may be given again after a restart: a delta means nothing without what it changes. */
  kind: 'snapshot' | 'delta';
  /** SHA-256 in hex over the bytes. */
  file: string;
}>;

/** What is wrong with one of the bundles; the cause says whether it is the bundle or its verification key. */
export class BundleError extends AppError {
  readonly bundle: string;

  constructor(bundle: string, cause: AppError) {
    super(cause.code, cause.message, { cause });
    this.bundle = bundle;
  }
}
