import type { JsonObject } from '../policy/decision.ts';

/** A table of strings without a prototype, so that no name but the sender's is ever found in it. */
export type StringMap = Readonly<Record<string, string>>;

/** An address as Envoy sends it; exactly one of the three is set, or none for a kind that is not known here. */
export type CheckAddress = Readonly<{
  socketAddress?: JsonObject;
  pipe?: JsonObject;
  envoyInternalAddress?: JsonObject;
}>;

/** One end of the connection. */
export type CheckPeer = Readonly<{
  address?: CheckAddress;
  service?: string;
  labels?: StringMap;
  /** The URI SAN, else the DNS SAN, else the subject of the certificate that TLS accepted. */
  principal?: string;
  /** URL-encoded PEM of the leaf. */
  certificate?: string;
}>;

/** One entry of `header_map`. */
export type RawHeader = Readonly<{ key?: string; value?: string; rawValue?: Buffer }>;

export type CheckHttp = Readonly<{
  id?: string;
  method?: string;
  headers?: StringMap;
  path?: string;
  host?: string;
  scheme?: string;
  query?: string;
  fragment?: string;
  /** A number, or a rawNumber() beyond the safe integers. */
  size?: unknown;
  protocol?: string;
  body?: string;
  rawBody?: Buffer;
  headerMap?: Readonly<{ headers?: readonly RawHeader[] }>;
}>;

export type CheckMetadata = Readonly<{
  filterMetadata?: JsonObject;
  typedFilterMetadata?: Readonly<Record<string, Readonly<{ typeUrl?: string; value?: Buffer }>>>;
}>;

/**
 * `envoy.service.auth.v3.AttributeContext` with only the populated members: no empty strings, zeros or empty lists,
 * but messages that were sent empty are here as `{}`.
 */
export type CheckAttributes = Readonly<{
  source?: CheckPeer;
  destination?: CheckPeer;
  /** Seconds are a number, or a rawNumber() beyond the safe integers. */
  request?: Readonly<{ time?: Readonly<{ seconds?: unknown; nanos?: number }>; http?: CheckHttp }>;
  contextExtensions?: StringMap;
  metadataContext?: CheckMetadata;
  tlsSession?: Readonly<{ sni?: string }>;
  routeMetadataContext?: CheckMetadata;
}>;

/** A CheckRequest as the rest of this room uses it. */
export type CheckRequest = Readonly<{
  /** Absent when the message had none: an empty CheckRequest. */
  attributes: CheckAttributes | undefined;
  /** The headers by lower-case name, from `headers` or else from `header_map`, values of one name joined by commas. */
  headers: StringMap;
}>;
