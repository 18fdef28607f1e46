/** What a handler may know of its call. */
export type CallContext = Readonly<{
  /** Fires when the caller cancels, its deadline passes or the server stops. */
  signal: AbortSignal;
  /** The caller's deadline in milliseconds since the epoch, if it set one. */
  deadline: number | undefined;
  /** What was sent under that metadata key, in lower case; that of a `-bin` key as its base64 text. */
  metadata(key: string): readonly string[];
  /** The peer's address and port; empty for one on a unix socket. */
  peer: string;
}>;

type MethodCodec<Req, Res> = Readonly<{
  decode(bytes: Buffer): Req;
  encode(response: Res): Buffer;
}>;

export type UnaryMethod<Req, Res> = MethodCodec<Req, Res> &
  Readonly<{ kind: 'unary'; handle(request: Req, call: CallContext): Promise<Res> }>;

export type ServerStreamMethod<Req, Res> = MethodCodec<Req, Res> &
  Readonly<{ kind: 'server_stream'; handle(request: Req, call: CallContext): AsyncIterable<Res> }>;

export type BidiMethod<Req, Res> = MethodCodec<Req, Res> &
  Readonly<{
    kind: 'bidi';
    handle(requests: AsyncIterable<Req>, call: CallContext): AsyncIterable<Res>;
  }>;

/**
 * A gRPC service, free of any gRPC library. Handlers throw AppError (mapped in status.ts) or StatusError for an exact
 * status; anything else becomes INTERNAL without its text.
 */
export type Service = Readonly<{
  /** Full name, e.g. `envoy.service.auth.v3.Authorization`. */
  name: string;
  methods: Readonly<Record<string, Method>>;
}>;

// oxlint-disable-next-line typescript/no-explicit-any -- a table of methods of different types
export type Method = UnaryMethod<any, any> | ServerStreamMethod<any, any> | BidiMethod<any, any>;
