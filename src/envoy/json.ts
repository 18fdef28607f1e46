/** A piece of Envoy configuration: plain data in the field names of Envoy's protos. */
export type Json = Readonly<Record<string, unknown>>;

/** The `@type` of an extension's configuration. */
export function typed(name: string, fields: Json): Json {
  return { '@type': `type.googleapis.com/${name}`, ...fields };
}

/** Milliseconds as protobuf's JSON writes a Duration. */
export function seconds(ms: number): string {
  return `${ms / 1000}s`;
}
