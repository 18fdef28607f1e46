import type { LogFields, Logger } from '../runtime/log.ts';
import type { SdsMeter, SdsProtocol } from './meter.ts';
import { describeUnanswered } from './remedies.ts';
import type { Resource } from './resources.ts';
import type { Note, StreamState } from './stream.ts';

/** Tells log and meter what becomes of one stream. */
export interface StreamReport {
  opened(): void;
  closed(): void;
  /** `state` is the one after the step that made the notes. */
  notes(state: StreamState, notes: readonly Note[]): void;
  sent(state: StreamState, resources: readonly Resource[]): void;
}

export function createStreamReport(
  protocol: SdsProtocol,
  { log, meter }: { log: Logger; meter: SdsMeter },
): StreamReport {
  function tell(fields: LogFields, note: Note): void {
    switch (note.kind) {
      case 'ack':
        for (const { kind } of note.names) meter.acked(kind);
        log.debug({ ...fields, version: note.version }, 'secrets accepted');
        break;
      case 'nack':
        for (const { kind } of note.names) meter.nacked(kind);
        log.warn(
          { ...fields, version: note.version, names: shown(note.names), reason: note.message },
          'envoy refused secrets and keeps its old ones',
        );
        break;
      case 'stale_nonce':
        log.debug({ ...fields, nonce: note.nonce }, 'request with a stale nonce');
        break;
      case 'unanswered':
        meter.unknownName(note.nameKind);
        log.info({ ...fields, name: note.name, ...describeUnanswered(note) }, 'secret cannot be given now');
        break;
    }
  }

  return Object.freeze({
    opened: () => meter.streamOpened(protocol),
    closed: () => meter.streamClosed(protocol),
    notes(state: StreamState, notes: readonly Note[]) {
      if (notes.length === 0) return;
      const fields = fieldsOf(protocol, state);
      for (const note of notes) tell(fields, note);
    },
    sent(state: StreamState, resources: readonly Resource[]) {
      for (const { kind } of resources) meter.pushed(kind);
      const { version, names = [] } = state.last ?? {};
      log.debug({ ...fieldsOf(protocol, state), version, names: shown(names) }, 'secrets sent');
    },
  } satisfies StreamReport);
}

function fieldsOf(protocol: SdsProtocol, { streamId, node }: StreamState): LogFields {
  return { protocol, stream: streamId, node: node?.id ?? '', cluster: node?.cluster ?? '' };
}

const maxNamesShown = 16;

function shown(names: readonly Readonly<{ name: string }>[]): readonly string[] {
  return names.slice(0, maxNamesShown).map(({ name }) => name);
}
