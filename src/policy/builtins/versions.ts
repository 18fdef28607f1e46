import { type Builtins, refuse, text } from './args.ts';

type Version = Readonly<{ numbers: readonly bigint[]; preRelease: string }>;

const identifiers = /^[\dA-Za-z-]+(?:\.[\dA-Za-z-]+)*$/;

/** `semver.*`; a `v` in front is allowed. */
export const versionBuiltins: Builtins = {
  'semver.is_valid': ([version = null]) => typeof version === 'string' && parse(version) !== undefined,
  'semver.compare': (args) => {
    const [a, b] = [parse(text(args, 0)), parse(text(args, 1))];
    return a === undefined || b === undefined ? refuse('text is no semantic version') : compare(a, b);
  },
};

function parse(written: string): Version | undefined {
  const found = /^v?([^+-]*)(?:-([^+]*))?(?:\+(.*))?$/s.exec(written);
  if (found === null) return undefined;
  const [, core = '', preRelease, metadata] = found;
  if (metadata !== undefined && !identifiers.test(metadata)) return undefined;
  if (preRelease !== undefined) {
    if (!identifiers.test(preRelease)) return undefined;
    if (preRelease.split('.').some((one) => /^0\d+$/.test(one))) return undefined;
  }
  const numbers = core.split('.');
  if (numbers.length !== 3 || !numbers.every((one) => /^(?:0|[1-9]\d*)$/.test(one))) return undefined;
  const values = numbers.map(BigInt);
  if (values.some((one) => one > 0x7fff_ffff_ffff_ffffn)) return undefined;
  return { numbers: values, preRelease: preRelease ?? '' };
}

function compare(a: Version, b: Version): number {
  for (const [index, one] of a.numbers.entries()) {
    const other = b.numbers[index] ?? 0n;
    if (one !== other) return one < other ? -1 : 1;
  }
  if (a.preRelease === b.preRelease) return 0;
  if (a.preRelease === '' || b.preRelease === '') return a.preRelease === '' ? 1 : -1;
  return comparePreRelease(a.preRelease.split('.'), b.preRelease.split('.'));
}

function comparePreRelease(a: readonly string[], b: readonly string[]): number {
  for (const [index, one] of a.entries()) {
    const other = b[index];
    if (other === undefined) return 1;
    if (one === other) continue;
    const [isNumber, otherIsNumber] = [/^\d+$/.test(one), /^\d+$/.test(other)];
    if (isNumber !== otherIsNumber) return isNumber ? -1 : 1;
    const less = isNumber ? BigInt(one) < BigInt(other) : one < other;
    return less ? -1 : 1;
  }
  return -1;
}
