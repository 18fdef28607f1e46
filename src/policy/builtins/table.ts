import { type Builtin, type Builtins, text } from './args.ts';
import { collectionBuiltins } from './collections.ts';
import { cryptoBuiltins } from './crypto.ts';
import { encodingBuiltins } from './encoding.ts';
import { createJwtBuiltins } from './jwt.ts';
import { netBuiltins } from './net.ts';
import { createRegexBuiltins } from './regex.ts';
import { sprintfBuiltins } from './sprintf.ts';
import { textBuiltins } from './text.ts';
import { createTimeBuiltins } from './time.ts';
import { unitBuiltins } from './units.ts';
import { uriBuiltins } from './uri.ts';
import { uuidBuiltins } from './uuid.ts';
import { versionBuiltins } from './versions.ts';
import { x509Builtins } from './x509/x509.ts';
import { yamlBuiltins } from './yaml.ts';

const others: Builtins = {
  // No configuration and no environment of this process is a policy's business.
  'opa.runtime': () => new Map(),
  trace: (args) => text(args, 0) !== undefined,
};

/** Every built-in that is supplied to policies from outside their module, by name. One table for one thread. */
export function createBuiltins(): ReadonlyMap<string, Builtin> {
  return new Map(
    [
      collectionBuiltins,
      cryptoBuiltins,
      encodingBuiltins,
      createJwtBuiltins(),
      netBuiltins,
      others,
      createRegexBuiltins(),
      sprintfBuiltins,
      textBuiltins,
      createTimeBuiltins(),
      unitBuiltins,
      uriBuiltins,
      uuidBuiltins,
      versionBuiltins,
      x509Builtins,
      yamlBuiltins,
    ].flatMap((family) => Object.entries(family)),
  );
}
