import type { Rule } from './rule.ts';

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
];
