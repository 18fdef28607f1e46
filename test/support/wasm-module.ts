/** A function of a module, by how many i32 it takes and what it gives: a number, its first argument or nothing. */
type WasmFunction = Readonly<{ parameters: number; gives: number | 'argument' | undefined }>;

const i32 = 0x7f;
const [exportsFunction, exportsGlobal] = [0, 3];
/** Where the texts of the tables are. */
const firstAddress = 1024;

/**
 * A module with the exports that OPA gives its policies (wasm ABI 1.2), whose tables of entry points and built-ins are
 * these texts. It evaluates nothing.
 */
export function moduleWithTables(entrypoints: string, builtins: string): Promise<WebAssembly.Module> {
  const texts = Buffer.from(`${entrypoints}\0${builtins}\0`);
  const builtinsAddress = firstAddress + Buffer.byteLength(entrypoints) + 1;
  const heapBase = firstAddress + texts.length;
  const functions: readonly (readonly [string, WasmFunction])[] = [
    ['entrypoints', { parameters: 0, gives: firstAddress }],
    ['builtins', { parameters: 0, gives: builtinsAddress }],
    ['opa_json_dump', { parameters: 1, gives: 'argument' }],
    ['opa_malloc', { parameters: 1, gives: 8 }],
    ['opa_free', { parameters: 1, gives: undefined }],
    ['opa_json_parse', { parameters: 2, gives: 1 }],
    ['opa_heap_ptr_get', { parameters: 0, gives: heapBase }],
  ];
  const globals = ['opa_wasm_abi_version', 'opa_wasm_abi_minor_version'];
  const types = functions.map(([, { parameters, gives }]) => [
    0x60,
    ...vector(Array.from({ length: parameters }, () => [i32])),
    ...vector(gives === undefined ? [] : [[i32]]),
  ]);
  const pages = Math.ceil(heapBase / 65_536) + 1;
  return WebAssembly.compile(
    Uint8Array.from([
      ...Buffer.from('\0asm\x01\0\0\0'),
      ...section(1, vector(types)),
      ...section(2, vector([[...name('env'), ...name('memory'), 2, 0, ...unsigned(pages)]])),
      ...section(3, vector(functions.map((_, index) => unsigned(index)))),
      ...section(6, vector([1, 2].map((version) => [i32, 0, ...constant(version), 0x0b]))),
      ...section(
        7,
        vector([
          ...functions.map(([what], index) => [...name(what), exportsFunction, ...unsigned(index)]),
          ...globals.map((what, index) => [...name(what), exportsGlobal, ...unsigned(index)]),
        ]),
      ),
      ...section(10, vector(functions.map(([, { gives }]) => bodyOf(gives)))),
      ...section(11, vector([[0, ...constant(firstAddress), 0x0b, ...unsigned(texts.length), ...texts]])),
    ]),
  );
}

function bodyOf(gives: WasmFunction['gives']): readonly number[] {
  const code = gives === undefined ? [] : gives === 'argument' ? [0x20, 0] : constant(gives);
  const body = [0, ...code, 0x0b];
  return [...unsigned(body.length), ...body];
}

function constant(value: number): readonly number[] {
  return [0x41, ...signed(value)];
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...unsigned(content.length), ...content];
}

function vector(items: readonly (readonly number[])[]): number[] {
  return [...unsigned(items.length), ...items.flat()];
}

function name(text: string): readonly number[] {
  return [...unsigned(text.length), ...Buffer.from(text)];
}

/** LEB128 (https://webassembly.github.io/spec/core/binary/values.html). */
function unsigned(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}

/** Of a value that is not negative. */
function signed(value: number): number[] {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >>> 7)];
}
