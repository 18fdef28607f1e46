import type { ConfigProblem } from '../runtime/errors.ts';
import type { Option } from './options.ts';
import { nearest } from './problems.ts';

/** The environment as the process got it. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** A value for one key from outside the file; `origin` is how messages call it. */
export type Setting = Readonly<{ path: string; value: unknown; origin: string }>;

export type EnvironmentSettings = Readonly<{
  /** Used when the file says nothing. */
  fallbacks: readonly Setting[];
  /** Used whatever the file says. */
  overrides: readonly Setting[];
  problems: readonly ConfigProblem[];
  warnings: readonly string[];
}>;

const prefix = 'SVIDECAR_';
const sourceOfTlsMode: Readonly<Record<string, string>> = { spiffe: 'workload_api', file: 'files' };

/**
 * Reads SVIDECAR_<KEY_PATH> for every scalar option, SPIFFE_ENDPOINT_SOCKET, SPIFFE_TRUST_DOMAIN and TLS_MODE. An
 * empty variable is unset. An unknown SVIDECAR_ variable is only a warning, because Kubernetes injects such names
 * (SVIDECAR_PORT) for a Service called svidecar.
 */
export function readEnvironment(env: Environment, options: readonly Option[]): EnvironmentSettings {
  const known = new Map(options.filter(isScalar).map((option) => [variableOf(option.path), option]));
  const overrides: Setting[] = [];
  const warnings: string[] = [];
  const problems: ConfigProblem[] = [];
  for (const [name, text] of Object.entries(env)) {
    if (!name.startsWith(prefix) || text === undefined || text === '') continue;
    const option = known.get(name);
    if (option === undefined) {
      const near = nearest(name.slice(prefix.length), [...known.keys()].map(nameOf));
      warnings.push(`${name} names no option${near === undefined ? '' : `; did you mean ${prefix}${near}?`}`);
    } else {
      overrides.push({ path: option.path, value: scalar(option, text), origin: name });
    }
  }
  assert({ path: 'trust_domain', value: env['SPIFFE_TRUST_DOMAIN'], origin: 'SPIFFE_TRUST_DOMAIN' });
  const mode = env['TLS_MODE'];
  const source = sourceOfTlsMode[mode ?? ''];
  if (mode !== undefined && mode !== '' && source === undefined) {
    problems.push({
      path: 'identity.source',
      message: `TLS_MODE must be spiffe or file, not ${quoted(mode)}`,
    });
  }
  assert({ path: 'identity.source', value: source, origin: 'TLS_MODE' });
  const socket = env['SPIFFE_ENDPOINT_SOCKET'];
  const fallbacks =
    socket === undefined || socket === ''
      ? []
      : [{ path: 'identity.workload_api.address', value: socket, origin: 'SPIFFE_ENDPOINT_SOCKET' }];
  return { fallbacks, overrides, problems, warnings };

  /** Two variables that say different things about who we are: neither is the safe one to follow. */
  function assert(setting: Setting): void {
    if (setting.value === undefined || setting.value === '') return;
    const other = overrides.find(({ path }) => path === setting.path);
    if (other === undefined) overrides.push(setting);
    else if (other.value !== setting.value) {
      problems.push({
        path: setting.path,
        message: `${setting.origin} and ${other.origin} say different things`,
      });
    }
  }
}

/** `admin.listen` → `SVIDECAR_ADMIN_LISTEN`. */
export function variableOf(path: string): string {
  return prefix + path.replaceAll('.', '_').toUpperCase();
}

/** True for an option that one variable or flag can set: no list, no map, and not inside a list. */
export function isScalar(option: Option): boolean {
  return (
    (option.kind === 'boolean' || option.kind === 'number' || option.kind === 'text') &&
    !option.path.includes('[]')
  );
}

/** Text that is none of the option's type stays text, so that the schema says what is wrong with it. */
export function scalar(option: Option, text: string): unknown {
  if (option.kind === 'boolean' && (text === 'true' || text === 'false')) return text === 'true';
  if (option.kind === 'number' && /^-?\d{1,15}$/.test(text)) return Number(text);
  return text;
}

function nameOf(variable: string): string {
  return variable.slice(prefix.length);
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 64));
}
