import { encodeCertificatesPem, encodePrivateKeyPem } from '../spiffe/certificate.ts';
import type { CredentialSource } from '../spiffe/server-credentials.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { SnapshotReader, TrustSnapshot } from './snapshot.ts';

/** Our own X509-SVID, as `pick` chooses it. While there is none the last one stays in use. */
export function svidCredentials(
  snapshots: SnapshotReader,
  pick: (snapshot: TrustSnapshot) => X509Svid | undefined,
): CredentialSource {
  return async function* credentials(signal) {
    let shown: string | undefined;
    for await (const snapshot of snapshots.changes(signal)) {
      const svid = pick(snapshot);
      if (svid === undefined || svid.chain[0].fingerprint === shown) continue;
      shown = svid.chain[0].fingerprint;
      yield {
        certificatePem: encodeCertificatesPem(svid.chain),
        privateKeyPem: encodePrivateKeyPem(svid.privateKey),
      };
    }
  };
}
