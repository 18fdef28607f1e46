import type { SpiffeId } from './spiffe-id.ts';

/** A JWT-SVID as it was issued to us (JWT-SVID §3). `token` is a credential: never logged. */
export type JwtSvid = Readonly<{
  spiffeId: SpiffeId;
  audiences: readonly string[];
  token: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
  /** Milliseconds since the epoch; when the token has no iat, the time it was received. */
  issuedAt: number;
  hint: string;
  claims: Readonly<Record<string, unknown>>;
}>;
