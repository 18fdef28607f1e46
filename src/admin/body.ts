import type { IncomingMessage } from 'node:http';
import { LimitError, MalformedError } from '../runtime/errors.ts';

/** The longest body that is read: a chain of certificates fits well. */
const maxBodyBytes = 256 * 1024;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** True when the request has a body, whatever its method. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
}

/** Reads the body as text. Rejects with LimitError beyond `maxBodyBytes` and MalformedError for what is no UTF-8. */
export async function readBody(request: IncomingMessage): Promise<string> {
  const tooLong = (): LimitError => new LimitError(`body is longer than ${maxBodyBytes} bytes`);
  if (Number(request.headers['content-length'] ?? 0) > maxBodyBytes) throw tooLong();
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    // With destroyOnReturn the answer to a body that is too long could not be sent.
    for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > maxBodyBytes) throw tooLong();
      parts.push(part);
    }
  } catch (cause) {
    throw cause instanceof LimitError ? cause : new MalformedError('body has no end', { cause });
  }
  try {
    return utf8.decode(Buffer.concat(parts));
  } catch (cause) {
    throw new MalformedError('body is not UTF-8', { cause });
  }
}
