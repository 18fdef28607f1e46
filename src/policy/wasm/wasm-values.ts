import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { formatValue, parseValue, type Value } from '../builtins/value.ts';

/** The functions of an OPA module that move values across its border (wasm ABI 1.2). */
export type ValueExports = Readonly<{
  opa_malloc(size: number): number;
  opa_free(address: number): void;
  opa_json_parse(address: number, length: number): number;
  opa_json_dump(value: number): number;
  opa_value_parse(address: number, length: number): number;
  opa_value_dump(value: number): number;
}>;

/** Bytes of the text that ends with a zero byte at `address`; a view that is valid until the memory changes. */
export function textAt(memory: WebAssembly.Memory, address: number): Uint8Array {
  const bytes = new Uint8Array(memory.buffer);
  const end = bytes.indexOf(0, address);
  if (address === 0 || end === -1) throw new MalformedError('evaluation gave no result set');
  return bytes.subarray(address, end);
}

export function stringAt(memory: WebAssembly.Memory, address: number): string {
  return Buffer.from(textAt(memory, address)).toString('utf8');
}

/** The value at an address, sets and large numbers as they are. */
export function readValue(exports: ValueExports, memory: WebAssembly.Memory, address: number): Value {
  const text = exports.opa_value_dump(address);
  const value = parseValue(stringAt(memory, text));
  exports.opa_free(text);
  return value;
}

/** Longest text of a value; every byte of it takes several in the memory of a module. */
const maxText = 64 * 1024 * 1024;

/**
 * Puts a value into the module's memory and gives its address. Throws LimitError for one whose text would be too long: a
 * value may hold another many times over, of which its text has every copy.
 */
export function writeValue(exports: ValueExports, memory: WebAssembly.Memory, value: Value): number {
  checkSize(value);
  return writeText(exports, memory, Buffer.from(formatValue(value)), exports.opa_value_parse);
}

/** Has a parser of the module read a text. Throws MalformedError when it cannot. */
export function writeText(
  exports: ValueExports,
  memory: WebAssembly.Memory,
  text: Uint8Array,
  parse: (address: number, length: number) => number,
): number {
  const address = exports.opa_malloc(text.byteLength);
  new Uint8Array(memory.buffer).set(text, address);
  const value = parse(address, text.byteLength);
  if (value === 0) throw new MalformedError('value cannot be read by the policy');
  exports.opa_free(address);
  return value;
}

/** Counts no further than the bound, and without recursion. */
function checkSize(value: Value): void {
  const pending: Value[] = [value];
  let size = 0;
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    size += typeof next === 'string' ? next.length + 2 : 1;
    if (size + pending.length > maxText)
      throw new LimitError('a built-in function gave a value that is too large');
    if (next instanceof Map) {
      for (const pair of next as ReadonlyMap<Value, Value>) pending.push(...pair);
    } else if (Array.isArray(next) || next instanceof Set) {
      for (const item of next as Iterable<Value>) pending.push(item);
    }
  }
}
