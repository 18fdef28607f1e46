import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/log.ts';
import type { JwtSvid } from '../spiffe/jwt-svid.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { JwtSvidCache } from '../tokens/jwt-svid-cache.ts';

/** The JWT-SVIDs of one identity, one for each audience, kept up to date while they are followed. */
export interface OutputTokens {
  /** By audience; none that has expired at `now` (milliseconds). */
  held(now: number): ReadonlyMap<string, JwtSvid>;
  /** Follows the tokens of this identity from now on, those of another are forgotten; undefined follows none. */
  follow(spiffeId: SpiffeId | undefined): void;
}

/** `onChange` is called whenever a token comes or is dropped; everything ends with `signal`. */
export function createOutputTokens(options: {
  audiences: readonly string[];
  cache: Pick<JwtSvidCache, 'watch'>;
  onChange: () => void;
  signal: AbortSignal;
  log: Logger;
}): OutputTokens {
  const { audiences, cache, onChange, signal, log } = options;
  let identity: SpiffeId | undefined;
  let following = new AbortController();
  let tokens: ReadonlyMap<string, JwtSvid> = new Map();

  async function watch(audience: string, spiffeId: SpiffeId, until: AbortSignal): Promise<void> {
    try {
      for await (const svid of cache.watch({ audience, spiffeId }, until)) {
        if (until.aborted) return;
        const others = [...tokens].filter(([name]) => name !== audience);
        tokens = new Map(svid === undefined ? others : [...others, [audience, svid]]);
        onChange();
      }
    } catch (error) {
      log.error({ audience, spiffeId, error: messageOf(error) }, 'JWT-SVID for a file cannot be followed');
    }
  }

  return Object.freeze({
    held: (now: number) => new Map([...tokens].filter(([, { expiresAt }]) => expiresAt > now)),
    follow(spiffeId: SpiffeId | undefined) {
      if (spiffeId === identity) return;
      identity = spiffeId;
      following.abort();
      following = new AbortController();
      tokens = new Map();
      if (spiffeId === undefined) return;
      const until = AbortSignal.any([signal, following.signal]);
      for (const audience of audiences) void watch(audience, spiffeId, until);
    },
  });
}
