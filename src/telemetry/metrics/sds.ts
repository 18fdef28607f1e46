import type { Instruments } from '../instruments.ts';

export function sdsMetrics({ counter, gauge }: Instruments) {
  const streams = gauge('sds_streams', 'SDS streams that are open.', ['protocol']);
  const opened = counter('sds_streams_opened_total', 'SDS streams that were opened.', ['protocol']);
  const pushes = counter('sds_pushes_total', 'Secrets that were sent to Envoys.', ['kind']);
  const acks = counter('sds_acks_total', 'Secrets that Envoys accepted.', ['kind']);
  const nacks = counter('sds_nacks_total', 'Secrets that Envoys refused.', ['kind']);
  const unknown = counter('sds_unknown_names_total', 'Names asked for that nothing was known of.', ['kind']);
  return Object.freeze({
    streamOpened(protocol: string): void {
      streams.inc({ protocol });
      opened.inc({ protocol });
    },
    streamClosed: (protocol: string): void => streams.dec({ protocol }),
    pushed: (kind: string): void => pushes.inc({ kind }),
    acked: (kind: string): void => acks.inc({ kind }),
    nacked: (kind: string): void => nacks.inc({ kind }),
    unknownName: (kind: string): void => unknown.inc({ kind }),
  });
}
