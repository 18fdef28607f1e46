import { createHash } from 'node:crypto';
import { AppError, MalformedError, toAppError, UnavailableError } from '../../runtime/errors.ts';
import { contentOf, type FileEvent } from '../../runtime/file-watch.ts';
import { encodeOpaPath, type OpaApi, refusalText } from './opa-api.ts';

/** A file for OPA: Rego as the policy with the id `target`, or JSON as the document at the path `target` below `data`. */
export type PushItem = Readonly<{ kind: 'policy' | 'data'; target: string; file: string }>;

/** What a file holds, as it is sent. */
export type PushContent = Readonly<{ bytes: Buffer; digest: string }>;

/** OPA does not want what it was given; sending the same again would end the same way. */
export class OpaRefusalError extends AppError {
  constructor(message: string) {
    super('invalid_argument', message);
  }
}

const timeoutMs = 15_000;

/** Gives OPA a file. Rejects with OpaRefusalError when it is to blame, else as HttpClient does; both name the file. */
export async function pushTo(
  api: OpaApi,
  { kind, target, file }: PushItem,
  { bytes }: PushContent,
  signal: AbortSignal,
): Promise<void> {
  const path =
    kind === 'policy' ? `/v1/policies/${encodeOpaPath(target)}` : `/v1/data/${encodeOpaPath(target)}`;
  const type = kind === 'policy' ? 'text/plain' : 'application/json';
  const name = `${file} (${kind} ${target})`;
  const response = await api
    .send({ method: 'PUT', path, body: bytes, type, timeoutMs }, signal)
    .catch((error: unknown) => {
      const { code, message } = toAppError(error);
      throw new AppError(code, `${name}: ${message}`, { cause: error });
    });
  if (response.status === 200 || response.status === 204) return;
  const text = `${name}: ${refusalText(response)}`;
  throw response.status >= 500 || response.status === 429
    ? new UnavailableError(text)
    : new OpaRefusalError(text);
}

/** The content to push; throws an AppError that names the file. OPA judges Rego, JSON is looked at before. */
export function pushContentOf({ kind, file }: PushItem, event: FileEvent | undefined): PushContent {
  const bytes = contentOf(file, event);
  if (kind === 'data') {
    try {
      JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    } catch (cause) {
      throw new MalformedError(`${file} is not JSON`, { cause });
    }
  }
  return Object.freeze({ bytes, digest: digestOf(bytes) });
}

export function digestOf(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('hex').slice(0, 32);
}
