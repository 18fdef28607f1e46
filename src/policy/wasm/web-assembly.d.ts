/** The few parts of WebAssembly in use; their types come with TypeScript's DOM library only, which no server wants whole. */
declare namespace WebAssembly {
  /** A compiled module; workers share its code when they are handed one. */
  interface Module {
    readonly [Symbol.toStringTag]: 'WebAssembly.Module';
  }
  class Memory {
    constructor(size: Readonly<{ initial: number; maximum: number }>);
    readonly buffer: ArrayBuffer;
    /** Adds pages of 64 KiB; throws RangeError beyond the maximum. */
    grow(pages: number): number;
  }
  interface Global {
    readonly value: unknown;
  }
  class Instance {
    constructor(module: Module, imports: Readonly<Record<string, Readonly<Record<string, unknown>>>>);
    readonly exports: unknown;
  }
  class LinkError extends Error {}
  function compile(bytes: Uint8Array<ArrayBuffer>): Promise<Module>;
}
