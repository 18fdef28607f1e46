/** What one end of a TLS connection shows: a chain and its key, PEM. The key is a secret. */
export type TlsCredentials = Readonly<{ certificatePem: Buffer; privateKeyPem: Buffer }>;

/** The credentials of now and, as they change, the newer ones; ends with `signal`. */
export type CredentialSource = (signal: AbortSignal) => AsyncIterable<TlsCredentials>;
