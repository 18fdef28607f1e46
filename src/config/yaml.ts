import { ConfigError, messageOf } from '../runtime/errors.ts';
import { type Document, parseDocument, stringify } from '../runtime/yaml.ts';

const maxTextBytes = 1024 * 1024;
const maxAliases = 100;
const maxDepth = 64;

/**
 * Reads one YAML 1.2 (or JSON) document. Throws ConfigError, with line numbers, for text that is too large, for
 * duplicate keys, tags other than the core ones, more than one document, aliases that multiply, and nesting without end.
 */
export function parseYaml(text: string): unknown {
  if (Buffer.byteLength(text) > maxTextBytes) throw refused(['is larger than 1 MiB']);
  const document = parseDocument(text, { schema: 'core', uniqueKeys: true, stringKeys: true });
  const faults = [...document.errors, ...document.warnings].map((fault) => oneLine(fault.message));
  if (faults.length > 0) throw refused(faults);
  const value = plain(document);
  if (isDeeper(value, maxDepth)) throw refused([`is nested deeper than ${maxDepth} levels`]);
  return value;
}

function plain(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: maxAliases });
  } catch (error) {
    throw refused([oneLine(messageOf(error))]);
  }
}

/** An alias inside of what it names makes a value that contains itself, which is deeper than any bound. */
function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((child) => isDeeper(child, levels - 1));
}

/** Writes a value as YAML without anchors, quoted so that readers of YAML 1.1 (Envoy: `n` is false) see the same. */
export function formatYaml(value: unknown): string {
  return stringify(value, { aliasDuplicateObjects: false, compat: 'yaml-1.1', lineWidth: 0 });
}

function refused(faults: readonly string[]): ConfigError {
  return new ConfigError(faults.map((message) => ({ path: '', message })));
}

/** The library's messages go on with an excerpt of the file, which may hold anything. */
function oneLine(message: string): string {
  const first = message.split('\n', 1)[0] ?? '';
  return first.replace(/:$/, '');
}
