import { AppError, LimitError, MalformedError, messageOf } from '../../runtime/errors.ts';
import { parseJson } from '../../runtime/parse-json.ts';
import type { Builtin, EvaluationContext } from '../builtins/args.ts';
import { createBuiltins } from '../builtins/table.ts';
import { readValue, stringAt, textAt, type ValueExports, writeText, writeValue } from './wasm-values.ts';

/** One instance of a compiled policy with its data, in the thread that calls it. */
export interface WasmPolicy {
  /** Entry point numbers by decision path. */
  readonly entrypoints: ReadonlyMap<string, number>;
  /**
   * Evaluates over an input that is JSON text; returns the result set as JSON text, a view that is valid until the next
   * call: `[]` for undefined, else `[{"result": …}]`. Throws MalformedError when the policy aborts or the text is longer
   * than 4 MiB.
   */
  evaluate(entrypoint: number, input: Uint8Array): Uint8Array;
}

export type WasmPolicySource = Readonly<{
  module: WebAssembly.Module;
  /** JSON text of the base document, an object; checked before, because the module's parser ignores what follows it. */
  data: Uint8Array;
  maxMemoryBytes: number;
}>;

const pageBytes = 65_536;
const initialPages = 5;
/** An instance that one large evaluation has blown up is renewed beyond this, because wasm memory never shrinks. */
const keepMemoryBytes = 64 * 1024 * 1024;
/** Whoever evaluates reads the result in the thread that answers everybody else; as much as is taken from an OPA server. */
const maxResultBytes = 4 * 1024 * 1024;
/** Of the table of entry points, and of that of built-ins, as text. */
const maxTableBytes = 1024 * 1024;

/** What an evaluation may take from the world. */
export type PolicyWorld = Readonly<{
  /** Milliseconds since 1970. */
  now: () => number;
  /** From 0 up to 1. */
  random: () => number;
}>;

/**
 * Loads a policy. Throws MalformedError for a module that is no OPA policy, data that it cannot read, and a built-in that
 * nobody supplies, by name: it would fail, or be undefined, only when a request reaches it.
 */
export function loadWasmPolicy(source: WasmPolicySource, world: PolicyWorld): WasmPolicy {
  const host = createHost(world);
  let instance = instantiate(source, host);
  const missing = [...instance.builtins.values()].filter((name) => !host.supplied.has(name));
  if (missing.length > 0) {
    throw new MalformedError(
      `policy calls built-ins that are not available here: ${missing.sort().join(', ')}`,
    );
  }
  const baseBytes = instance.memory.buffer.byteLength;

  return {
    entrypoints: instance.entrypoints,
    evaluate(entrypoint, input) {
      if (instance.memory.buffer.byteLength > baseBytes + keepMemoryBytes)
        instance = instantiate(source, host);
      host.begin();
      try {
        return run(instance, entrypoint, input);
      } catch (error) {
        // What unwinds a wasm stack from outside leaves its stack pointer low; an instance that aborted is not used again.
        instance = instantiate(source, host);
        throw new MalformedError(`policy aborted: ${describe(error)}`, { cause: error });
      }
    },
  };
}

/** The built-ins from outside, and what they share during one evaluation. */
type Host = Readonly<{
  supplied: ReadonlyMap<string, Builtin>;
  begin(): void;
  context(): EvaluationContext;
}>;

function createHost({ now, random }: PolicyWorld): Host {
  let context: EvaluationContext | undefined;
  return {
    supplied: createBuiltins(),
    begin() {
      context = undefined;
    },
    context() {
      context ??= { nowNs: BigInt(Math.trunc(now() * 1000)) * 1000n, memory: new Map(), random };
      return context;
    },
  };
}

type Instance = Readonly<{
  exports: OpaExports;
  memory: WebAssembly.Memory;
  dataAddress: number;
  heapBase: number;
  entrypoints: ReadonlyMap<string, number>;
  builtins: ReadonlyMap<number, string>;
}>;

type OpaExports = ValueExports &
  Readonly<{
    opa_wasm_abi_version?: WebAssembly.Global;
    opa_wasm_abi_minor_version?: WebAssembly.Global;
    builtins(): number;
    entrypoints(): number;
    opa_heap_ptr_get(): number;
    opa_eval(
      reserved: number,
      entrypoint: number,
      data: number,
      input: number,
      inputLength: number,
      heap: number,
      format: number,
    ): number;
  }>;

function instantiate(source: WasmPolicySource, host: Host): Instance {
  const maximum = Math.floor(source.maxMemoryBytes / pageBytes);
  // How much memory the module imports cannot be asked of it; one that needs more says so as a LinkError.
  for (let initial = initialPages; ; initial *= 2) {
    try {
      const memory = new WebAssembly.Memory({ initial: Math.min(initial, maximum), maximum });
      return link(source, host, memory);
    } catch (error) {
      if (error instanceof WebAssembly.LinkError && initial < maximum) continue;
      if (error instanceof AppError) throw error;
      throw new MalformedError(`policy.wasm cannot be loaded: ${describe(error)}`, { cause: error });
    }
  }
}

/** Wasm ABI 1.2 and up (https://www.openpolicyagent.org/docs/latest/wasm/). */
function link(source: WasmPolicySource, host: Host, memory: WebAssembly.Memory): Instance {
  const callBuiltin = (id: number, _context: number, ...args: number[]): number => {
    const name = builtins.get(id) ?? '';
    const builtin = host.supplied.get(name);
    if (builtin === undefined) throw new MalformedError(`built-in ${name} is not available here`);
    const values = args.map((address) => readValue(exports, memory, address));
    try {
      return writeValue(exports, memory, builtin(values, host.context()));
    } catch (error) {
      // A call that fails is undefined, as in OPA. An error of ours is not the policy's: it ends the evaluation.
      if (error instanceof MalformedError) return 0;
      throw error;
    }
  };
  const env = {
    memory,
    opa_abort(address: number): never {
      throw new MalformedError(stringAt(memory, address));
    },
    // Its text may hold parts of a request.
    opa_println() {},
    opa_builtin0: callBuiltin,
    opa_builtin1: callBuiltin,
    opa_builtin2: callBuiltin,
    opa_builtin3: callBuiltin,
    opa_builtin4: callBuiltin,
  };
  const exports = new WebAssembly.Instance(source.module, { env }).exports as OpaExports;
  if (
    exports.opa_wasm_abi_version?.value !== 1 ||
    !((exports.opa_wasm_abi_minor_version?.value as number) >= 2)
  ) {
    throw new MalformedError('policy.wasm is not of ABI 1.2 or a later 1.x');
  }
  const table = (what: string, address: number): [string, number][] => {
    const text = textAt(memory, exports.opa_json_dump(address));
    if (text.byteLength > maxTableBytes)
      throw new LimitError(`table of ${what} in policy.wasm is longer than ${maxTableBytes} bytes`);
    return Object.entries(parseJson(Buffer.from(text).toString('utf8')) as Record<string, number>);
  };
  const builtins = new Map(table('built-ins', exports.builtins()).map(([name, id]) => [id, name]));
  const entrypoints = new Map(table('entry points', exports.entrypoints()));
  const dataAddress = readData(exports, memory, source.data);
  return { exports, memory, dataAddress, heapBase: exports.opa_heap_ptr_get(), entrypoints, builtins };
}

function readData(exports: OpaExports, memory: WebAssembly.Memory, data: Uint8Array): number {
  try {
    return writeText(exports, memory, data, exports.opa_json_parse);
  } catch (error) {
    // The allocator of the module has no other error.
    throw new LimitError(
      `data of ${data.byteLength} bytes does not fit in the memory that a policy may have: ${describe(error)}`,
      { cause: error },
    );
  }
}

/** One call of `opa_eval` (wasm ABI 1.2), which resets the heap to `heapBase`: nothing survives an evaluation. */
function run(instance: Instance, entrypoint: number, input: Uint8Array): Uint8Array {
  const { exports, memory, dataAddress, heapBase } = instance;
  const shortage = heapBase + input.byteLength - memory.buffer.byteLength;
  if (shortage > 0) memory.grow(Math.ceil(shortage / pageBytes));
  new Uint8Array(memory.buffer).set(input, heapBase);
  const heap = heapBase + Math.ceil(input.byteLength / 8) * 8;
  const result = textAt(
    memory,
    exports.opa_eval(0, entrypoint, dataAddress, heapBase, input.byteLength, heap, 0),
  );
  if (result.byteLength > maxResultBytes)
    throw new LimitError(`result is longer than ${maxResultBytes} bytes`);
  return result;
}

function describe(thrown: unknown): string {
  return messageOf(thrown).slice(0, 300);
}
