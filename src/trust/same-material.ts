import type { JwtBundle, JwtBundleSet, X509Bundle, X509BundleSet } from '../spiffe/bundle.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import { isSameKey } from '../spiffe/same-key.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';

/** True when both hold the same certificates, keys and hints in the same order. */
export function sameSvids(a: readonly X509Svid[], b: readonly X509Svid[]): boolean {
  return sameList(
    a,
    b,
    (x, y) => x.hint === y.hint && sameCertificates(x.chain, y.chain) && x.privateKey.equals(y.privateKey),
  );
}

/** True when both hold the same authorities, CRLs and sequence for the same trust domains; the order of domains is nothing. */
export function sameX509Bundles(a: X509BundleSet, b: X509BundleSet): boolean {
  return sameMap<X509Bundle>(
    a,
    b,
    (x, y) =>
      x.sequence === y.sequence &&
      sameCertificates(x.authorities, y.authorities) &&
      sameList(x.crls, y.crls, (crl, other) => crl.equals(other)),
  );
}

/** True when both hold the same keys under the same IDs for the same trust domains. */
export function sameJwtBundles(a: JwtBundleSet, b: JwtBundleSet): boolean {
  return sameMap<JwtBundle>(a, b, (x, y) =>
    sameList(
      x.authorities,
      y.authorities,
      (key, other) =>
        key.keyId === other.keyId &&
        key.jwk['alg'] === other.jwk['alg'] &&
        isSameKey(key.publicKey, other.publicKey),
    ),
  );
}

function sameCertificates(a: readonly Certificate[], b: readonly Certificate[]): boolean {
  return sameList(a, b, (x, y) => x.fingerprint === y.fingerprint);
}

function sameList<T>(a: readonly T[], b: readonly T[], same: (x: T, y: T) => boolean): boolean {
  return a === b || (a.length === b.length && a.every((x, index) => same(x, b[index] as T)));
}

function sameMap<T>(
  a: ReadonlyMap<string, T>,
  b: ReadonlyMap<string, T>,
  same: (x: T, y: T) => boolean,
): boolean {
  if (a === b) return true;
  if (a.size !== b.size) return false;
  for (const [name, value] of a) {
    const other = b.get(name);
    if (other === undefined || !same(value, other)) return false;
  }
  return true;
}
