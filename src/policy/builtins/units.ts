import { type Builtins, refuse, text, whole } from './args.ts';
import { numberOf, type Value } from './value.ts';

const powers = ['', 'k', 'm', 'g', 't', 'p', 'e'];

/** `units.*`: exact, in units of 1000 (`k`, `MB`) or of 1024 (`Ki`, `MiB`). */
export const unitBuiltins: Builtins = {
  'units.parse': (args) => {
    const [amount, unit] = split(text(args, 0));
    const [numerator, denominator] = ratio(amount);
    if (unit === 'm') return decimal(numerator, denominator * 1000n);
    const [head, tail] = [unit.charAt(0), unit.slice(1).toLowerCase()];
    const power = powers.indexOf(head.toLowerCase());
    if (power === -1 || (tail !== '' && (tail !== 'i' || power === 0)))
      return refuse('unit is not recognized');
    return decimal(numerator * (tail === 'i' ? 1024n : 1000n) ** BigInt(power), denominator);
  },
  'units.parse_bytes': (args) => {
    const [amount, unit] = split(text(args, 0).toLowerCase());
    const [numerator, denominator] = ratio(amount);
    const found = /^(?<power>[kmgtpe])(?<binary>i)?b?$/.exec(unit)?.groups;
    if (found === undefined && unit !== '') return refuse('byte unit is not recognized');
    const base = found?.['binary'] === undefined ? 1000n : 1024n;
    const power = BigInt(Math.max(0, powers.indexOf(found?.['power'] ?? '')));
    return whole((numerator * base ** power) / denominator);
  },
};

function split(written: string): readonly [amount: string, unit: string] {
  const plain = written.replaceAll('"', '');
  if (plain.includes(' ')) refuse('spaces are not allowed in amounts');
  const amount = /^[+-]?[\d.]*(?:[eE][+-]?\d+)?/.exec(plain)?.[0] ?? '';
  return [amount, plain.slice(amount.length)];
}

/** The amount as a fraction. */
function ratio(amount: string): readonly [bigint, bigint] {
  const found = /^(?<sign>[+-]?)(?<before>\d*)\.?(?<after>\d*)(?:[eE](?<exponent>[+-]?\d+))?$/.exec(
    amount,
  )?.groups;
  const [before = '', after = ''] = [found?.['before'], found?.['after']];
  if (before + after === '') return refuse('amount is not a number');
  const exponent = Number(found?.['exponent'] ?? 0) - after.length;
  if (Math.abs(exponent) > 100_000) return refuse('exponent is too large');
  const digits = BigInt(before + after) * (found?.['sign'] === '-' ? -1n : 1n);
  return exponent >= 0 ? [digits * 10n ** BigInt(exponent), 1n] : [digits, 10n ** BigInt(-exponent)];
}

/** Whole, or rounded half away from zero to ten decimals. */
function decimal(numerator: bigint, denominator: bigint): Value {
  if (numerator % denominator === 0n) return whole(numerator / denominator);
  const size = numerator < 0n ? -numerator : numerator;
  const scaled = (size * 10n ** 10n * 2n + denominator) / (denominator * 2n);
  const digits = scaled.toString().padStart(11, '0');
  return numberOf(`${numerator < 0n ? '-' : ''}${digits.slice(0, -10)}.${digits.slice(-10)}`);
}
