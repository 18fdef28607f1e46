import type { AppError } from '../runtime/errors.ts';
import type { JwtBundleSet } from '../spiffe/bundle.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { X509Context } from '../spiffe/x509-context.ts';

/**
 * What a watch tells. `update` is the full new state; `revoked` says the source no longer grants this workload an
 * identity (PERMISSION_DENIED, Workload API §5.2.1); `failed` says the last good value has to do for now.
 */
export type WatchEvent<T> =
  | Readonly<{ kind: 'update'; value: T }>
  | Readonly<{ kind: 'revoked'; error: AppError }>
  | Readonly<{ kind: 'failed'; error: AppError; terminal: boolean }>;

/** Where identity comes from. Watches end only when their signal fires, or after a `failed` event that is terminal. */
export interface IdentitySource {
  readonly name: 'workload_api' | 'files' | 'dev';
  watchX509(signal: AbortSignal): AsyncIterable<WatchEvent<X509Context>>;
  watchJwtBundles(signal: AbortSignal): AsyncIterable<WatchEvent<JwtBundleSet>>;
  /** JWT-SVIDs for the audiences; for every identity of the workload when `spiffeId` is absent. Never empty. */
  fetchJwtSvids(request: JwtSvidRequest, signal: AbortSignal): Promise<readonly JwtSvid[]>;
}

export type JwtSvidRequest = Readonly<{ audiences: readonly string[]; spiffeId?: SpiffeId | undefined }>;
