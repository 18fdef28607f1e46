import type { Certificate } from '../spiffe/certificate.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';

/** Several times what a server that renews its own certificate twice a day leaves behind. */
const maxEarlier = 16;

/**
 * The intermediates of the SVIDs' chains, and then those of `earlier` that are still valid at `now` (milliseconds), each
 * once. A peer may hold an SVID of the last intermediate for half of its life after ours came from the next; that it
 * still leads to an authority in the bundle is checked with each peer.
 */
export function gatherIntermediates(
  svids: readonly X509Svid[],
  earlier: readonly Certificate[],
  now: number,
): readonly Certificate[] {
  const current = unique(svids.flatMap(({ chain }) => chain.slice(1)));
  const known = new Set(current.map(({ fingerprint }) => fingerprint));
  const valid = earlier.filter(({ fingerprint, notAfter }) => !known.has(fingerprint) && notAfter >= now);
  return Object.freeze([...current, ...valid.slice(0, maxEarlier)]);
}

function unique(certificates: readonly Certificate[]): readonly Certificate[] {
  return [...new Map(certificates.map((certificate) => [certificate.fingerprint, certificate])).values()];
}
