/** What has to be there before Envoy should be sent traffic. */
export type Part = 'identity' | 'policy' | 'listeners';

/** The state of one part: undefined when it is there, else what is wrong, for the operator. */
export type Problems = Readonly<Partial<Record<Part, string | undefined>>>;

export type Readiness = Readonly<{
  ready: boolean;
  missing: readonly Readonly<{ part: Part; reason: string }>[];
}>;

/** Ready when no part has a problem; a part that is switched off is left out by the caller. */
export function readinessOf(problems: Problems): Readiness {
  const missing = Object.entries(problems).flatMap(([part, reason]) =>
    reason === undefined ? [] : [Object.freeze({ part: part as Part, reason })],
  );
  return Object.freeze({ ready: missing.length === 0, missing: Object.freeze(missing) });
}
