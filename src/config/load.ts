import type { z } from 'zod';
import { ConfigError, type ConfigProblem } from '../runtime/errors.ts';
import { buildConfig, type Config } from './config.ts';
import { type Environment, readEnvironment, type Setting, scalar } from './environment.ts';
import { listOptions } from './options.ts';
import { messageFor, toProblems, withoutUnions } from './problems.ts';
import { checkRules } from './rules.ts';
import { encodeOptions, type Options, parseWith } from './schema.ts';
import { valueAt, withoutNulls, withoutPath, withValue } from './tree.ts';
import { formatMode } from './units.ts';
import { formatYaml, parseYaml } from './yaml.ts';

export type ConfigInput = Readonly<{
  /** The text of the file, YAML or JSON; absent when there is no file. */
  text?: string | undefined;
  /** Where the text was read from: relative file names in it count from its folder. */
  path?: string | undefined;
  env: Environment;
  /** Values from the command line by key path (`admin.listen`). */
  flags?: Readonly<Record<string, string>> | undefined;
  /** What only other rooms can see in a configuration; its problems are told together with the rest. */
  check?: ((config: Config) => readonly ConfigProblem[]) | undefined;
}>;

export type LoadedConfig = Readonly<{
  config: Config;
  /** What the config came from, in the file's terms; see describeConfig. */
  options: Options;
  /** For the log: nothing that keeps the program from running. */
  warnings: readonly string[];
}>;

/**
 * Reads the configuration: flags override the environment, which overrides the file. Throws ConfigError that names
 * every problem at once, each with its key path and, when it was not the file, where the value came from.
 */
export function loadConfig({ text, path, env, flags = {}, check = () => [] }: ConfigInput): LoadedConfig {
  const known = listOptions();
  const fromEnv = readEnvironment(env, known);
  const fromFlags = Object.entries(flags).map(([key, value]): Setting => {
    const option = known.find((candidate) => candidate.path === key);
    return { path: key, value: option === undefined ? value : scalar(option, value), origin: 'command line' };
  });
  const layers = [...fromEnv.overrides, ...fromFlags];
  const file = withoutNulls(text === undefined ? {} : (parseYaml(text) ?? {}));
  const raw = apply(
    layers,
    apply(
      fromEnv.fallbacks.filter((fallback) => valueAt(file, fallback.path.split('.')) === undefined),
      file,
    ),
  );
  const { options, problems } = parseTree(raw, (found) => check(buildConfig(found, path)));
  const environmentProblems = fromEnv.problems.filter((problem) => !Object.hasOwn(flags, problem.path));
  const all = [...environmentProblems, ...intoLists(layers, file), ...problems].map((problem) =>
    withOrigin(problem, [...fromEnv.fallbacks, ...layers]),
  );
  if (options === undefined || all.length > 0) throw new ConfigError(all);
  const warnings = Object.freeze([...fromEnv.warnings, ...warningsOf(options)]);
  return Object.freeze({ config: buildConfig(options, path), options, warnings });
}

/** The effective configuration as a config file would have it, defaults included. No option of this version is a secret. */
export function describeConfig(options: Options): string {
  return formatYaml(encodeOptions(options));
}

function warningsOf({ listen, listen_mode: mode, sds }: Options): readonly string[] {
  if (!sds.enabled || listen.kind !== 'unix' || (mode & 0o007) === 0) return [];
  return [`listen_mode ${formatMode(mode)} lets every user of this machine fetch private keys over SDS`];
}

function parseTree(
  raw: unknown,
  check: (options: Options) => readonly ConfigProblem[],
): { options: Options | undefined; problems: readonly ConfigProblem[] } {
  const known = listOptions();
  const first = parseWith(raw, messageFor);
  if (first.success) {
    return { options: first.data, problems: [...checkRules(first.data, []), ...check(first.data)] };
  }
  const issues = first.error.issues.flatMap((issue) => withoutUnions(issue, (at) => valueAt(raw, at)));
  const problems = issues.flatMap((issue) => toProblems(issue, known));
  // The rules look at the rest as if the broken keys were not there, so that one run shows everything.
  const rest = parseWith(issues.flatMap(pathsOf).reduce(withoutPath, raw), messageFor);
  if (!rest.success) return { options: undefined, problems };
  const broken = problems.map((problem) => problem.path);
  const further = check(rest.data).filter(({ path }) => !broken.some((at) => overlap(at, path)));
  return { options: undefined, problems: [...problems, ...checkRules(rest.data, broken), ...further] };
}

/** True when one of two key paths is the other or lies in it: what is told of one may only be its shadow. */
function overlap(a: string, b: string): boolean {
  const inside = (inner: string, outer: string): boolean =>
    inner === outer || inner.startsWith(`${outer}.`) || inner.startsWith(`${outer}[`);
  return inside(a, b) || inside(b, a);
}

function pathsOf(issue: z.core.$ZodIssue): readonly (readonly PropertyKey[])[] {
  return issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [...issue.path, key]) : [issue.path];
}

/** A setting that would have to choose an item of a list: dropped silently, it would look obeyed. */
function intoLists(settings: readonly Setting[], file: unknown): readonly ConfigProblem[] {
  return settings.flatMap(({ path }) => {
    const keys = path.split('.');
    const list = keys.findIndex((_, end) => Array.isArray(valueAt(file, keys.slice(0, end))));
    if (list === -1) return [];
    return [
      { path, message: `cannot be set, because ${keys.slice(0, list).join('.')} is a list in the file` },
    ];
  });
}

function apply(settings: readonly Setting[], tree: unknown): unknown {
  return settings.reduce((result, { path, value }) => withValue(result, path.split('.'), value), tree);
}

function withOrigin(problem: ConfigProblem, settings: readonly Setting[]): ConfigProblem {
  const setting = settings.findLast(({ path }) => path === problem.path);
  return setting === undefined || problem.message.includes(setting.origin)
    ? problem
    : { ...problem, message: `${problem.message} (from ${setting.origin})` };
}
