import type { KeyObject } from 'node:crypto';

/**
 * True for equal keys. Kinds are compared first: asked about two kinds, `equals` leaves an error of OpenSSL behind, over
 * which the next private key that is read stumbles (Node 24).
 */
export function isSameKey(one: KeyObject, other: KeyObject): boolean {
  return one.asymmetricKeyType === other.asymmetricKeyType && one.equals(other);
}
