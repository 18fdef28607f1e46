import type { Writable } from 'node:stream';
import { pino } from 'pino';
import type { Logger } from '../runtime/log.ts';
import { redactFields } from './redact.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** A logger that writes one JSON object a line: `time` in RFC 3339, `level`, the fields without credentials, `message`. */
export function createLogger(options: { level: LogLevel; destination: Writable }): Logger {
  const sink = pino(
    {
      level: options.level,
      base: null,
      messageKey: 'message',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }), log: redactFields },
    },
    options.destination,
  );
  return Object.freeze({
    debug: (fields, message) => sink.debug(fields, message),
    info: (fields, message) => sink.info(fields, message),
    warn: (fields, message) => sink.warn(fields, message),
    error: (fields, message) => sink.error(fields, message),
  } satisfies Logger);
}
