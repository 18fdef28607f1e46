import { encodeCertificatesPem, encodePrivateKeyPem } from '../spiffe/certificate.ts';
import type { CredentialSource, TlsCredentials } from '../spiffe/tls-credentials.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { SnapshotReader, TrustSnapshot } from './snapshot.ts';

type Choose = (snapshot: TrustSnapshot) => X509Svid | undefined;

/** Our own X509-SVID, the one of `choose`. While there is none the last one stays in use. */
export function svidCredentials(snapshots: SnapshotReader, choose: Choose): CredentialSource {
  return async function* credentials(signal) {
    let shown: string | undefined;
    for await (const snapshot of snapshots.changes(signal)) {
      const svid = choose(snapshot);
      if (svid === undefined || svid.chain[0].fingerprint === shown) continue;
      shown = svid.chain[0].fingerprint;
      yield credentialsOf(svid);
    }
  };
}

/**
 * Our own X509-SVID of the moment, the one of `choose`; undefined while there is none. The same object as long as it is
 * the same SVID.
 */
export function currentCredentials(
  snapshots: Pick<SnapshotReader, 'current'>,
  choose: Choose,
): () => TlsCredentials | undefined {
  let held: Readonly<{ fingerprint: string; credentials: TlsCredentials }> | undefined;
  return () => {
    const svid = choose(snapshots.current());
    if (svid === undefined) return undefined;
    const { fingerprint } = svid.chain[0];
    if (held?.fingerprint !== fingerprint) held = { fingerprint, credentials: credentialsOf(svid) };
    return held.credentials;
  };
}

function credentialsOf(svid: X509Svid): TlsCredentials {
  return Object.freeze({
    certificatePem: encodeCertificatesPem(svid.chain),
    privateKeyPem: encodePrivateKeyPem(svid.privateKey),
  });
}
