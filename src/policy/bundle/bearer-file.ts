import { constants, open } from 'node:fs/promises';
import { AppError, errnoOf, MalformedError } from '../../runtime/errors.ts';

const maxBytes = 16 * 1024;

/**
 * The bearer token (RFC 6750 §2.1) in a file, white space around it aside. It is read anew each time, so that a rotated one
 * is used. Throws AppError, which names the file and never holds any of the token.
 */
export async function readBearerFile(path: string): Promise<string> {
  const bytes = Buffer.alloc(maxBytes + 1);
  let length = 0;
  try {
    // Without O_NONBLOCK a FIFO would be waited for, also when the program is to end.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      ({ bytesRead: length } = await file.read(bytes, 0, bytes.length));
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw new AppError('not_found', `bearer token ${path} cannot be read: ${errnoOf(cause) ?? 'failed'}`, {
      cause,
    });
  }
  if (length > maxBytes) throw new MalformedError(`bearer token ${path} is longer than ${maxBytes} bytes`);
  const token = bytes.toString('latin1', 0, length).trim();
  if (!/^[A-Za-z0-9._~+/-]+=*$/.test(token)) {
    throw new MalformedError(`bearer token ${path} is empty or holds characters that no bearer token has`);
  }
  return token;
}
