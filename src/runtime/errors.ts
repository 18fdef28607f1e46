/** What went wrong, as a closed list: callers branch on it, metrics label with it, and it never carries a value. */
export type ErrorCode =
  | 'malformed'
  | 'invalid_argument'
  | 'not_found'
  | 'permission_denied'
  | 'unavailable'
  | 'unimplemented'
  | 'timeout'
  | 'aborted'
  | 'limit_exceeded'
  | 'conflict'
  | 'config'
  | 'internal';

/**
 * The base of every error this program throws on purpose. Messages are lower case, without a full stop, name the
 * thing that is wrong and never contain a key or a token.
 */
export class AppError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** Bytes or text from outside that do not follow their format. */
export class MalformedError extends AppError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('malformed', message, options);
  }
}

/** A limit of ours (size, count, depth) was passed; the input was not looked at further. */
export class LimitError extends AppError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('limit_exceeded', message, options);
  }
}

/** Another party cannot be reached or is not ready; trying again may help. */
export class UnavailableError extends AppError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('unavailable', message, options);
  }
}

/** A bound on time has passed. */
export class TimeoutError extends AppError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('timeout', message, options);
  }
}

/** The signal that governs the work has fired; nothing is wrong with the work itself. */
export class AbortedError extends AppError {
  constructor(message = 'aborted', options?: { cause?: unknown }) {
    super('aborted', message, options);
  }
}

/** One problem in a configuration: where it is, as a key path, and what to do about it. */
export type ConfigProblem = Readonly<{ path: string; message: string }>;

/** Everything that is wrong with a configuration at once, so that the operator mends it in one go (exit code 64). */
export class ConfigError extends AppError {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    super('config', problems.map((p) => (p.path === '' ? p.message : `${p.path}: ${p.message}`)).join('\n'));
    this.problems = problems;
  }
}

/** The single converter from a caught `unknown`: an AppError stays as it is, everything else becomes `internal`. */
export function toAppError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  return new AppError('internal', messageOf(error), { cause: error });
}

/** The text of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The errno name (`ENOENT`, `EACCES`, …) of a system error, looked for along the chain of causes. */
export function errnoOf(error: unknown): string | undefined {
  for (let e = error; e instanceof Error; e = e.cause) {
    if ('code' in e && typeof e.code === 'string' && /^E[A-Z0-9]+$/.test(e.code)) return e.code;
  }
  return undefined;
}
