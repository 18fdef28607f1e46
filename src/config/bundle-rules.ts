import type { ConfigProblem } from '../runtime/errors.ts';
import { isSafeUrl } from './address.ts';
import { type BundleOptions, bundleEntries } from './bundle-section.ts';
import type { Rule } from './rule.ts';

/** Where bundles come from. */
export const bundleRules: readonly Rule[] = [
  {
    reads: ['policy.bundle'],
    check: (options) =>
      bundleEntries(options.policy.bundle).flatMap(({ at, entry }) => problemsOf(entry, at)),
  },
];

function problemsOf(entry: BundleOptions, at: string): readonly ConfigProblem[] {
  if (entry.url !== undefined) {
    return entry.file === undefined
      ? serviceProblems(entry, entry.url, at)
      : [{ path: `${at}.url`, message: `is there beside ${at}.file: a bundle comes from one of them` }];
  }
  if (entry.file === undefined) return [{ path: at, message: 'needs a file or a url' }];
  return (['polling', 'auth', 'persist_dir'] as const).flatMap((key) =>
    entry[key] === undefined ? [] : [{ path: `${at}.${key}`, message: 'is only for a url' }],
  );
}

function serviceProblems(
  { polling, auth, verification_key: key }: BundleOptions,
  url: string,
  at: string,
): readonly ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  if (polling !== undefined && polling.min > polling.max) {
    problems.push({ path: `${at}.polling.min`, message: `must not be more than ${at}.polling.max` });
  }
  if ((auth?.spiffe_ids.length ?? 0) > 0 && !url.startsWith('https:')) {
    problems.push({
      path: `${at}.url`,
      message: `must be https, because ${at}.auth.spiffe_ids says who is there`,
    });
  }
  if (isSafeUrl(url)) return problems;
  if (auth?.bearer_file !== undefined) {
    problems.push({
      path: `${at}.url`,
      message: `must be https, or have a loopback IP: anybody on the way could read the token of ${at}.auth.bearer_file`,
    });
  } else if (key === undefined) {
    problems.push({
      path: `${at}.url`,
      message: `must be https, or have a loopback IP, or ${at}.verification_key must be set: anybody on the way could change the policy`,
    });
  }
  return problems;
}
