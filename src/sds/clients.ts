import type { SdsProtocol } from './meter.ts';
import type { Reply, StreamState } from './stream.ts';

/** One open stream, for people to look at. Holds no secret. */
export type SdsClient = Readonly<{
  streamId: string;
  protocol: SdsProtocol;
  /** Milliseconds since the epoch. */
  openedAt: number;
  /** Empty until a request has told it. */
  nodeId: string;
  cluster: string;
  /** True when it asked for everything by naming nothing. */
  everything: boolean;
  names: readonly string[];
  /** Of the last answer; empty before the first. */
  version: string;
  /** What the client made of the last answer; `none` before the first. */
  ack: Reply['kind'] | 'none';
  /** The client's words when it refused the last answer, bounded. */
  nackMessage: string | undefined;
}>;

export function describeClient(protocol: SdsProtocol, openedAt: number, state: StreamState): SdsClient {
  const { streamId, node, subscription, last } = state;
  return Object.freeze({
    streamId,
    protocol,
    openedAt,
    nodeId: node?.id ?? '',
    cluster: node?.cluster ?? '',
    everything: subscription?.everything ?? false,
    names: Object.freeze([...(subscription?.names ?? [])]),
    version: last?.version ?? '',
    ack: last?.reply.kind ?? 'none',
    nackMessage: last?.reply.kind === 'nacked' ? last.reply.message : undefined,
  });
}
