import * as opaWasm from '@open-policy-agent/opa-wasm';
import { MalformedError, messageOf } from '../runtime/errors.ts';

/** One instance of a compiled policy with its data, in the thread that calls it. */
export interface WasmPolicy {
  /** Entry point numbers by decision path. */
  readonly entrypoints: ReadonlyMap<string, number>;
  /**
   * Evaluates over an input that is JSON text; returns the result set as JSON text, a view that is valid until the next
   * call: `[]` for undefined, else `[{"result": …}]`. Throws MalformedError when the policy aborts.
   */
  evaluate(entrypoint: number, input: Uint8Array): Uint8Array;
}

export type WasmPolicySource = Readonly<{
  module: WebAssembly.Module;
  /** JSON text of the base document. */
  data: Uint8Array<ArrayBuffer>;
  maxMemoryBytes: number;
}>;

// The package's types list this as a named export; at run time only its default export has it.
const { loadPolicySync } = (opaWasm as unknown as { default: Pick<typeof opaWasm, 'loadPolicySync'> })
  .default;

const pageBytes = 65_536;
const initialPages = 5;
/** An instance that one large evaluation has blown up is renewed beyond this, because wasm memory never shrinks. */
const keepMemoryBytes = 64 * 1024 * 1024;

/** Built-ins that the runtime package supplies from JavaScript, beside those compiled into the module. */
const suppliedBuiltins: ReadonlySet<string> = new Set([
  'json.is_valid',
  'regex.split',
  'sprintf',
  'yaml.is_valid',
  'yaml.marshal',
  'yaml.unmarshal',
]);

/**
 * Loads a policy. Throws MalformedError for a module that is no OPA policy, data that is not a JSON object, and a
 * built-in that nobody supplies, by name: it would fail, or be undefined, only when a request reaches it.
 */
export function loadWasmPolicy(source: WasmPolicySource): WasmPolicy {
  checkData(source.data);
  let instance = instantiate(source);
  const missing = builtinsOf(instance).filter((name) => !suppliedBuiltins.has(name));
  if (missing.length > 0) {
    throw new MalformedError(
      `policy calls built-ins that are not available here: ${missing.sort().join(', ')}`,
    );
  }
  const baseBytes = instance.memory.buffer.byteLength;

  return {
    entrypoints: entrypointsOf(instance),
    evaluate(entrypoint, input) {
      if (instance.memory.buffer.byteLength > baseBytes + keepMemoryBytes) instance = instantiate(source);
      try {
        return run(instance, entrypoint, input);
      } catch (error) {
        // What unwinds a wasm stack from outside leaves its stack pointer low; an instance that aborted is not used again.
        instance = instantiate(source);
        throw new MalformedError(`policy aborted: ${describe(error)}`, { cause: error });
      }
    },
  };
}

type Instance = Readonly<{
  exports: OpaExports;
  memory: WebAssembly.Memory;
  dataAddress: number;
  heapBase: number;
  entrypoints: unknown;
}>;

type OpaExports = Readonly<{
  builtins(): number;
  opa_json_dump(value: number): number;
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

function instantiate(source: WasmPolicySource): Instance {
  const maximum = Math.floor(source.maxMemoryBytes / pageBytes);
  // How much memory the module imports cannot be asked of it; one that needs more says so as a LinkError.
  for (let initial = initialPages; ; initial *= 2) {
    try {
      const memory = { initial: Math.min(initial, maximum), maximum };
      const policy = loadPolicySync(source.module, memory, {});
      if (!(policy.minorVersion >= 2)) throw new MalformedError('policy.wasm is of an ABI before 1.2');
      policy.setData(source.data.slice().buffer);
      const { exports } = policy.wasmInstance as unknown as { exports: OpaExports };
      return {
        exports,
        memory: policy.mem,
        dataAddress: policy.dataAddr,
        heapBase: Number(policy.dataHeapPtr),
        entrypoints: policy.entrypoints,
      };
    } catch (error) {
      if (error instanceof WebAssembly.LinkError && initial < maximum) continue;
      if (error instanceof MalformedError) throw error;
      throw new MalformedError(`policy.wasm cannot be loaded: ${describe(error)}`, { cause: error });
    }
  }
}

/** One call of `opa_eval` (wasm ABI 1.2), which resets the heap to `heapBase`: nothing survives an evaluation. */
function run(instance: Instance, entrypoint: number, input: Uint8Array): Uint8Array {
  const { exports, memory, dataAddress, heapBase } = instance;
  const shortage = heapBase + input.byteLength - memory.buffer.byteLength;
  if (shortage > 0) memory.grow(Math.ceil(shortage / pageBytes));
  new Uint8Array(memory.buffer).set(input, heapBase);
  const heap = heapBase + Math.ceil(input.byteLength / 8) * 8;
  return textAt(memory, exports.opa_eval(0, entrypoint, dataAddress, heapBase, input.byteLength, heap, 0));
}

function textAt(memory: WebAssembly.Memory, address: number): Uint8Array {
  const bytes = new Uint8Array(memory.buffer);
  const end = bytes.indexOf(0, address);
  if (address === 0 || end === -1) throw new MalformedError('evaluation gave no result set');
  return bytes.subarray(address, end);
}

function builtinsOf(instance: Instance): string[] {
  const address = instance.exports.opa_json_dump(instance.exports.builtins());
  const text = Buffer.from(textAt(instance.memory, address)).toString('utf8');
  return Object.keys(JSON.parse(text) as Record<string, number>);
}

function entrypointsOf(instance: Instance): ReadonlyMap<string, number> {
  const table = instance.entrypoints as Record<string, number>;
  return new Map(Object.entries(table));
}

/** The parser inside wasm stops at the end of the first value; what follows would be ignored. */
function checkData(data: Uint8Array): void {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(data).toString('utf8'));
  } catch (error) {
    throw new MalformedError('data.json of the bundle is not JSON', { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new MalformedError('data.json of the bundle is not a JSON object');
  }
}

/** The runtime package throws texts and plain objects as well as errors. */
function describe(thrown: unknown): string {
  const plain =
    typeof thrown === 'object' && thrown !== null && 'message' in thrown ? thrown.message : thrown;
  return messageOf(plain).slice(0, 300);
}
