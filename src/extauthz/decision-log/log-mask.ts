import { MalformedError } from '../../runtime/errors.ts';
import type { DecisionEvent } from './decision-log.ts';
import { erase, type Pointer, parsePointer } from './redaction.ts';

/** One operation of `system.log.mask`; values are put in place as they are. */
export type MaskOperation = Readonly<
  { text: string; pointer: Pointer } & ({ op: 'remove' } | { op: 'upsert'; value: unknown })
>;

const maxOperations = 1_000;
const maxPointerLength = 4_096;

/**
 * The value of `system.log.mask`: a list of JSON pointers to remove, or of `{op, path, value}`, where `op` is `remove` or
 * `upsert`. Undefined masks nothing. Throws MalformedError when anything in it cannot be carried out.
 */
export function parseMask(value: unknown): readonly MaskOperation[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new MalformedError('system.log.mask is not a set or list');
  if (value.length > maxOperations) {
    throw new MalformedError(`system.log.mask has more than ${maxOperations} operations`);
  }
  return value.flatMap((item: unknown) => parseOperation(item) ?? []);
}

function parseOperation(item: unknown): MaskOperation | undefined {
  const { op, path, value } = readOperation(item);
  if (typeof path !== 'string' || path.length > maxPointerLength) {
    throw new MalformedError('system.log.mask has an operation without a path');
  }
  // OPA's events have this member, ours do not.
  if (/^\/nd_builtin_cache(?:\/|$)/.test(path)) return undefined;
  const pointer = parsePointer(path);
  if (op === 'remove') return { op, text: path, pointer };
  if (op === 'upsert') return { op, text: path, pointer, value: value ?? null };
  throw new MalformedError('system.log.mask has an operation that is neither remove nor upsert');
}

function readOperation(item: unknown): { op?: unknown; path?: unknown; value?: unknown } {
  if (typeof item === 'string') return { op: 'remove', path: item };
  if (typeof item !== 'object' || item === null) {
    throw new MalformedError('system.log.mask has a member that is neither text nor an object');
  }
  return item;
}

/** The record after these operations, which are listed in its `erased` and `masked`. The original is left as it is. */
export function applyMask(event: DecisionEvent, operations: readonly MaskOperation[]): DecisionEvent {
  if (operations.length === 0) return event;
  const { input, result, erased: before, reason, ...rest } = event;
  const erased: string[] = Array.isArray(before) ? [...(before as string[])] : [];
  const masked: string[] = [];
  let documents: unknown = {
    ...(input === undefined ? {} : { input }),
    ...(result === undefined ? {} : { result }),
  };
  for (const { pointer, text, ...operation } of operations) {
    if (operation.op === 'remove') documents = erase(documents, pointer, erased);
    else if (Object.hasOwn(documents as object, pointer[0] ?? '')) {
      documents = upsert(documents, pointer, operation.value);
      masked.push(text);
    }
  }
  // Text out of the result stands there, too.
  const isResultTouched = [...erased, ...masked].some((path) => /^\/result(?:\/|$)/.test(path));
  return {
    ...rest,
    ...(documents as object),
    ...(erased.length === 0 ? {} : { erased }),
    ...(masked.length === 0 ? {} : { masked }),
    ...(reason === undefined || isResultTouched ? {} : { reason }),
  };
}

/** A copy with the value at the pointer, making the objects on the way; throws when something else stands in the way. */
function upsert(document: unknown, [segment, ...others]: Pointer, value: unknown): unknown {
  if (segment === undefined) return value;
  if (Array.isArray(document)) {
    if (!/^\d{1,9}$/.test(segment) || Number(segment) >= document.length) {
      throw new MalformedError('system.log.mask names a member that the list does not have');
    }
    return document.with(Number(segment), upsert(document[Number(segment)], others, value)) as unknown[];
  }
  if (document !== undefined && (typeof document !== 'object' || document === null)) {
    throw new MalformedError('system.log.mask names a member of something that has none');
  }
  const members = (document ?? {}) as Readonly<Record<string, unknown>>;
  const present = Object.hasOwn(members, segment) ? members[segment] : undefined;
  return { ...members, [segment]: upsert(present, others, value) };
}
