import { KeyObject } from 'node:crypto';
import { AppError } from '../runtime/errors.ts';

const maxDepth = 8;
const maxItems = 100;
const maxTextLength = 8192;
const redacted = '[redacted]';

/** Field and header names whose values are credentials, whatever room logs them; compared without case, `-` and `_`. */
const secretNames: ReadonlySet<string> = new Set([
  'authorization',
  'proxyauthorization',
  'cookie',
  'setcookie',
  'xforwardedclientcert',
  'token',
  'jwt',
  'privatekey',
  'password',
  'secret',
]);
const privateKeyBlock = /-----BEGIN [A-Z ]*PRIVATE KEY-----[^]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g;
const compactJws = /\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*/g;

/**
 * The fields of a log line with every credential taken out: values under a secret's name, bytes and key objects
 * wherever they are, and PEM keys and JWTs inside text. The last line of defence; callers do not log such things.
 */
export function redactFields(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return redactObject(fields, 0);
}

function redactValue(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return redactText(value);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return value;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer || value instanceof KeyObject)
    return redacted;
  if (value instanceof Date) return value;
  if (value instanceof Error) return redactError(value);
  if (depth >= maxDepth) return '[deeper]';
  if (value instanceof Set || value instanceof Map) return redactValue([...value], depth);
  if (Array.isArray(value)) return value.slice(0, maxItems).map((item) => redactValue(item, depth + 1));
  return redactObject(value as Record<string, unknown>, depth + 1);
}

function redactObject(value: Readonly<Record<string, unknown>>, depth: number): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(value)
      .slice(0, maxItems)
      .map(([name, child]) => [name, isSecretName(name) ? redacted : redactValue(child, depth)]),
  );
}

/** Errors of other libraries may carry what they were given, so only what was written for people is kept. */
function redactError(error: Error): Record<string, unknown> {
  return {
    name: error.name,
    message: redactText(error.message),
    ...(error instanceof AppError ? { code: error.code } : {}),
  };
}

function redactText(text: string): string {
  const bounded = text.length > maxTextLength ? `${text.slice(0, maxTextLength)}…` : text;
  return bounded.replaceAll(privateKeyBlock, redacted).replaceAll(compactJws, redacted);
}

function isSecretName(name: string): boolean {
  return secretNames.has(name.replaceAll(/[-_]/g, '').toLowerCase());
}
