import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { numberText, typeOf, type Value } from './value.ts';

/** What a built-in may know of the evaluation that calls it. */
export type EvaluationContext = Readonly<{
  /** Nanoseconds since 1970; the same during one evaluation. */
  nowNs: bigint;
  /** Results that must stay the same during one evaluation. */
  memory: Map<string, Value>;
  /** From 0 up to 1. */
  random: () => number;
}>;

/**
 * A built-in function. A MalformedError that it throws makes the call undefined, as OPA does with errors of built-ins;
 * any other error ends the evaluation.
 */
export type Builtin = (args: readonly Value[], context: EvaluationContext) => Value;

/** A family of built-ins by name. */
export type Builtins = Readonly<Record<string, Builtin>>;

/** Longest text, and most elements, that a built-in takes in or gives out. */
export const maxText = 16 * 1024 * 1024;
const maxItems = 1_000_000;

export function refuse(message: string): never {
  throw new MalformedError(message);
}

/** The text itself, unless it is beyond the bound: then the evaluation ends with LimitError. */
export function boundedText(text: string): string {
  if (text.length > maxText) throw new LimitError('a built-in function gave a text that is too long');
  return text;
}

export function boundedCount(count: number): number {
  if (count > maxItems) throw new LimitError('a built-in function gave too many elements');
  return count;
}

export function text(args: readonly Value[], index: number): string {
  const value = args[index];
  return typeof value === 'string' ? value : wrong(args, index, 'string');
}

export function list(args: readonly Value[], index: number): readonly Value[] {
  const value = args[index];
  return Array.isArray(value) ? (value as readonly Value[]) : wrong(args, index, 'array');
}

export function object(args: readonly Value[], index: number): ReadonlyMap<Value, Value> {
  const value = args[index];
  return value instanceof Map ? (value as ReadonlyMap<Value, Value>) : wrong(args, index, 'object');
}

/** The elements of an array or a set. */
export function elements(args: readonly Value[], index: number): readonly Value[] {
  const value = args[index];
  if (value instanceof Set) return [...(value as ReadonlySet<Value>)];
  return Array.isArray(value) ? (value as readonly Value[]) : wrong(args, index, 'array or set');
}

/** A whole number of any size; `1.0` counts as one. */
export function integer(args: readonly Value[], index: number): bigint {
  const written = numberText(args[index] ?? null);
  if (written === undefined || !/^-?\d+(?:\.0*)?$/.test(written)) return wrong(args, index, 'integer');
  return BigInt(written.replace(/\..*$/, ''));
}

/** A whole number that a loop or an index may be made of. */
export function smallInteger(args: readonly Value[], index: number): number {
  const value = integer(args, index);
  if (value < -0x8000_0000_0000_0000n || value > 0x7fff_ffff_ffff_ffffn) return wrong(args, index, 'int64');
  return Number(value);
}

/** The characters of a text as Rego counts them: code points. */
export function codePoints(value: string): string[] {
  return Array.from(value);
}

/** A whole number as a value. */
export function whole(value: bigint | number): Value {
  const written = String(value);
  const plain = Number(value);
  return String(plain) === written ? plain : Object.freeze({ number: written });
}

function wrong(args: readonly Value[], index: number, wanted: string): never {
  return refuse(`operand ${index + 1} must be ${wanted} but got ${typeOf(args[index] ?? null)}`);
}
