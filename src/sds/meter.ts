import type { NameKind } from './names.ts';

/** The three ways to ask for secrets, as a metric label. */
export type SdsProtocol = 'sotw' | 'delta' | 'fetch';

/** What the SDS room counts. Kinds are those of the resource names involved. */
export interface SdsMeter {
  streamOpened(protocol: SdsProtocol): void;
  streamClosed(protocol: SdsProtocol): void;
  /** One resource was put into an answer. */
  pushed(kind: NameKind): void;
  /** One resource of an answer was accepted or refused with it. */
  acked(kind: NameKind): void;
  nacked(kind: NameKind): void;
  /** A stream asked for a name that cannot be answered now; once per stream and name. */
  unknownName(kind: NameKind): void;
}
