import { resolve } from 'node:path';
import type { ConfigProblem } from '../runtime/errors.ts';
import type { Rule } from './rule.ts';
import type { Options } from './schema.ts';

/** What the options under `outputs` have to do with each other and with the identity source. */
export const outputRules: readonly Rule[] = [
  {
    reads: ['outputs'],
    check: ({ outputs }) =>
      outputs.flatMap(({ directory }, index) => {
        const same = outputs.findIndex((other) => resolve(other.directory) === resolve(directory));
        return same === index
          ? []
          : [{ path: `outputs[${index}].directory`, message: `is the same as that of outputs[${same}]` }];
      }),
  },
  { reads: ['outputs'], check: ({ outputs }) => outputs.flatMap(sameNameTwice) },
  {
    reads: ['outputs', 'identity.source'],
    check: ({ outputs, identity }) =>
      identity.source === 'files'
        ? outputs.flatMap(({ jwt }, index) =>
            jwt.length === 0
              ? []
              : [
                  {
                    path: `outputs[${index}].jwt`,
                    message:
                      'needs an identity source that issues JWT-SVIDs, which identity.source: files does not',
                  },
                ],
          )
        : [],
  },
];

/** All files of a directory have names of their own; that of federated bundles is a directory. */
function sameNameTwice(output: Options['outputs'][number], index: number): readonly ConfigProblem[] {
  const taken = new Map(output.federated ? [['federated', 'the directory of federated bundles']] : []);
  const names: readonly (readonly [string, string])[] = [
    ['certificate', output.certificate],
    ['private_key', output.private_key],
    ['bundle', output.bundle],
    ...output.jwt.map(({ file }, at) => [`jwt[${at}].file`, file] as const),
  ];
  return names.flatMap(([key, name]) => {
    const holder = taken.get(name);
    taken.set(name, key);
    return holder === undefined
      ? []
      : [{ path: `outputs[${index}].${key}`, message: `is the same name as ${holder}` }];
  });
}
