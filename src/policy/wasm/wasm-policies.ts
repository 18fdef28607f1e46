import { loadWasmPolicy, type PolicyWorld, type WasmPolicy } from './wasm-policy.ts';

/** Compiled policies that see the same data. */
export type WasmPoliciesSource = Readonly<{
  modules: readonly WebAssembly.Module[];
  /** JSON text of the base document, an object; checked before, because a module's parser ignores what follows it. */
  data: Uint8Array;
  /** For each policy. */
  maxMemoryBytes: number;
}>;

/** Loads them as one policy with the entry points of all, of which no two may be equal; see loadWasmPolicy. */
export function loadWasmPolicies(source: WasmPoliciesSource, world: PolicyWorld): WasmPolicy {
  const { modules, data, maxMemoryBytes } = source;
  const places = modules.flatMap((module) => {
    const policy = loadWasmPolicy({ module, data, maxMemoryBytes }, world);
    return [...policy.entrypoints].map(([path, entrypoint]) => ({ path, policy, entrypoint }));
  });
  return {
    entrypoints: new Map(places.map(({ path }, number) => [path, number])),
    evaluate(number, input) {
      const place = places[number];
      if (place === undefined) throw new RangeError(`no entry point ${number}`);
      return place.policy.evaluate(place.entrypoint, input);
    },
  };
}
