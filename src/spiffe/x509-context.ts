import type { X509BundleSet } from './bundle.ts';
import type { X509Svid } from './x509-svid.ts';

/** One full state of a source: every SVID of the workload and every bundle it may trust, own and federated. */
export type X509Context = Readonly<{
  /** In the source's order: the first is the default (Workload API §8). Never empty. */
  svids: readonly [X509Svid, ...X509Svid[]];
  bundles: X509BundleSet;
}>;
