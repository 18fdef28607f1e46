import { stat } from 'node:fs/promises';
import { Status, StatusError } from '../grpc/status.ts';
import {
  AppError,
  errnoOf,
  LimitError,
  MalformedError,
  TimeoutError,
  toAppError,
  UnavailableError,
} from '../runtime/errors.ts';
import { formatSocketAddress, type SocketAddress } from '../runtime/socket-address.ts';
import type { WorkloadFailure } from './meter.ts';

/** What went wrong with a call, and the error that tells an operator what to do about it. */
export type Failure = Readonly<{ kind: WorkloadFailure; error: AppError }>;

const maxDetails = 300;

/**
 * Sorts what a call to the Workload API at `address` threw into the closed list of failures (Workload Endpoint §6).
 * Where a socket cannot be connected to, it looks at the file to say why. Never rejects.
 */
export async function describeFailure(error: unknown, address: SocketAddress): Promise<Failure> {
  if (error instanceof MalformedError || error instanceof LimitError) {
    return failure('malformed', error);
  }
  if (error instanceof TimeoutError) {
    return failure(
      'timeout',
      new TimeoutError(`${nameOf(address)} took the call but gave no answer: ${error.message}`, {
        cause: error,
      }),
    );
  }
  if (!(error instanceof StatusError)) return failure('other', toAppError(error));
  const details = printable(error.details);
  switch (error.status) {
    case Status.PERMISSION_DENIED:
      return failure(
        'permission_denied',
        new AppError(
          'permission_denied',
          `${nameOf(address)} issues no identity to this process ("${details}"): check that a registration entry selects it`,
          { cause: error },
        ),
      );
    case Status.INVALID_ARGUMENT:
      return failure(
        'invalid_argument',
        new AppError('invalid_argument', `${nameOf(address)} refused the request ("${details}")`, {
          cause: error,
        }),
      );
    case Status.UNIMPLEMENTED:
      return failure(
        'unimplemented',
        new AppError('unimplemented', `${nameOf(address)} does not offer this call ("${details}")`, {
          cause: error,
        }),
      );
    case Status.DEADLINE_EXCEEDED:
      return failure(
        'timeout',
        new TimeoutError(`${nameOf(address)} gave no answer in time ("${details}")`, { cause: error }),
      );
    case Status.UNAVAILABLE: {
      const errno = errnoOf(error);
      if (errno === undefined) {
        return failure(
          'unavailable',
          new UnavailableError(`${nameOf(address)} is unavailable ("${details}")`, { cause: error }),
        );
      }
      return failure(
        'unreachable',
        new UnavailableError(await unreachableMessage(errno, address), { cause: error }),
      );
    }
    default:
      return failure(
        'other',
        new AppError(error.code, `call to ${nameOf(address)} failed (${printable(error.message)})`, {
          cause: error,
        }),
      );
  }
}

async function unreachableMessage(errno: string, address: SocketAddress): Promise<string> {
  const name = nameOf(address);
  if (address.kind === 'tcp') return `${name} cannot be reached (${errno}): is the agent running there`;
  switch (errno) {
    case 'ENOENT':
    case 'ENOTDIR':
      return `${name} does not exist (${errno}): is the agent running, and is the socket's directory mounted here`;
    case 'EACCES':
    case 'EPERM':
      return `${name} may not be opened by this process (${errno}): check owner, mode and SELinux label of the socket and of the directories above it`;
    default: {
      const kind = await fileKind(address.path);
      return kind === 'socket'
        ? `nobody listens on ${name} (${errno}): is the agent running; in a container mount the socket's directory, because a mounted socket file is dead after the agent restarts`
        : `${name} is a ${kind}, not a socket (${errno}): check the address`;
    }
  }
}

async function fileKind(path: string): Promise<'socket' | 'directory' | 'file'> {
  try {
    const found = await stat(path);
    if (found.isDirectory()) return 'directory';
    return found.isSocket() ? 'socket' : 'file';
  } catch {
    // Gone since the connect failed: what remains true is that nobody listened.
    return 'socket';
  }
}

function nameOf(address: SocketAddress): string {
  return `workload api ${formatSocketAddress(address)}`;
}

/** Text from the other side, cut and without control characters, so that it can stand in a message. */
function printable(text: string): string {
  return text.slice(0, maxDetails).replace(/\p{C}/gu, ' ');
}

function failure(kind: WorkloadFailure, error: AppError): Failure {
  return Object.freeze({ kind, error });
}
