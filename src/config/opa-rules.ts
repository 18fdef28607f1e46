import type { Rule } from './rule.ts';
import type { Options } from './schema.ts';

type Push = Options['policy']['opa']['push'][number];

/** Where the sidecar itself keeps what it has to know of an OPA. */
const ownPath = 'svidecar';

export const opaRules: readonly Rule[] = [
  {
    reads: ['policy.opa.url', 'policy.opa.spiffe_ids'],
    check: ({ policy: { opa } }) =>
      opa.spiffe_ids.length > 0 && !opa.url.startsWith('https:')
        ? [
            {
              path: 'policy.opa.url',
              message: 'must be https://HOST:PORT, because policy.opa.spiffe_ids says who is there',
            },
          ]
        : [],
  },
  {
    reads: ['policy.opa.push'],
    check: ({ policy: { opa } }) =>
      opa.push.flatMap((entry, index, all) => {
        const message = faultOf(entry) ?? clashOf(entry, all.slice(0, index));
        return message === undefined ? [] : [{ path: `policy.opa.push[${index}]`, message }];
      }),
  },
];

function faultOf({ policy, data }: Push): string | undefined {
  const target = policy ?? data;
  if (target === undefined || (policy !== undefined && data !== undefined))
    return 'needs either policy or data';
  if (target.split('/').some((segment) => ['', '.', '..'].includes(segment)))
    return `${policy === undefined ? 'data' : 'policy'} must be segments between slashes, none of them empty or of dots`;
  if (data !== undefined && overlap(data, ownPath)) return `data.${ownPath} is taken by svidecar itself`;
  return undefined;
}

/** What two files would write in turn is of nobody knows which. */
function clashOf({ policy, data }: Push, before: readonly Push[]): string | undefined {
  const other = before.findIndex((earlier) =>
    policy === undefined
      ? earlier.data !== undefined && overlap(earlier.data, data ?? '')
      : earlier.policy === policy,
  );
  return other === -1 ? undefined : `overlaps policy.opa.push[${other}]`;
}

function overlap(a: string, b: string): boolean {
  return a === b || a.startsWith(`${b}/`) || b.startsWith(`${a}/`);
}
