/** Significant digits and the place of the point: 0.d1d2d3… × 10^exponent. */
type Digits = Readonly<{ digits: string; exponent: number }>;

const maxPrecision = 1_100;

function shortest(value: number): Digits {
  const [mantissa = '0', exponent = '0'] = value.toExponential().split('e');
  return { digits: mantissa.replace('.', ''), exponent: Number(exponent) + 1 };
}

/** The value times 10^decimals, exact, a half rounded to even: JavaScript's own toFixed rounds it up. */
function scaled(value: number, decimals: number): bigint {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  const bits = view.getBigUint64(0);
  const power = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & 0xf_ffff_ffff_ffffn;
  const exponent = (power === 0 ? 1 : power) - 1075;
  let numerator = power === 0 ? fraction : fraction | (1n << 52n);
  let denominator = 1n;
  if (exponent >= 0) numerator <<= BigInt(exponent);
  else denominator <<= BigInt(-exponent);
  if (decimals >= 0) numerator *= 10n ** BigInt(decimals);
  else denominator *= 10n ** BigInt(-decimals);
  const [quotient, rest] = [numerator / denominator, numerator % denominator];
  const half = rest * 2n - denominator;
  return half > 0n || (half === 0n && (quotient & 1n) === 1n) ? quotient + 1n : quotient;
}

/** Rounded to so many significant digits. */
function rounded(value: number, count: number): Digits {
  if (value === 0) return { digits: '0'.repeat(count), exponent: 1 };
  let { exponent } = shortest(value);
  let digits = scaled(value, count - exponent).toString();
  if (digits.length < count) {
    exponent--;
    digits = scaled(value, count - exponent).toString();
  }
  return { digits: digits.slice(0, count), exponent: exponent + digits.length - count };
}

function exponential({ digits, exponent }: Digits): string {
  const fraction = digits.length > 1 ? `.${digits.slice(1)}` : '';
  const power = exponent - 1;
  return `${digits.charAt(0)}${fraction}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
}

function plain({ digits, exponent }: Digits): string {
  if (exponent <= 0) return `0.${'0'.repeat(-exponent)}${digits}`;
  const whole = digits.slice(0, exponent).padEnd(exponent, '0');
  return digits.length > exponent ? `${whole}.${digits.slice(exponent)}` : whole;
}

function fixed(value: number, precision: number): string {
  const digits = scaled(value, precision)
    .toString()
    .padStart(precision + 1, '0');
  return precision === 0 ? digits : `${digits.slice(0, -precision)}.${digits.slice(-precision)}`;
}

function general(value: number, precision: number | undefined): string {
  if (value === 0) return '0';
  const wanted = precision === 0 ? 1 : precision;
  const { digits, exponent } = wanted === undefined ? shortest(value) : rounded(value, wanted);
  const kept = { digits: digits.replace(/(?<=.)0+$/, ''), exponent };
  const short = wanted !== undefined && wanted > kept.digits.length && kept.digits.length >= exponent;
  const threshold = short ? kept.digits.length : (wanted ?? 6);
  return exponent - 1 < -4 || exponent - 1 >= threshold ? exponential(kept) : plain(kept);
}

/** A number that is not negative, as Go's %e, %f and %g write it; %g without a precision is the shortest that is exact. */
export function formatFloat(value: number, verb: 'e' | 'f' | 'g', precision?: number): string {
  if (!Number.isFinite(value)) return '+Inf';
  const bounded = precision === undefined ? undefined : Math.min(precision, maxPrecision);
  if (verb === 'g') return general(value, bounded);
  return verb === 'f' ? fixed(value, bounded ?? 6) : exponential(rounded(value, (bounded ?? 6) + 1));
}
