import { LimitError } from '../../runtime/errors.ts';
import { codePoints, refuse } from './args.ts';

type Range = readonly [low: number, high: number];
type Token = Readonly<{ ranges: readonly Range[]; repeat: '' | '*' | '+' }>;

const anything: readonly Range[] = [[0, 0x10ffff]];
const maxStates = 1_000_000;

/** True if some text that is not empty fits both globs (`.`, `*`, `+`, `[a-z]`, `\` before a special character). */
export function globsMeet(a: string, b: string): boolean {
  const [left, right] = [tokensOf(a), tokensOf(b)];
  if (left.length * right.length > maxStates) throw new LimitError('globs are too long to be compared');
  const seen = new Set<string>();
  // `held`: a `+` that has matched once already.
  const pending: [i: number, j: number, heldI: boolean, heldJ: boolean, any: boolean][] = [
    [0, 0, false, false, false],
  ];
  for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
    const [i, j, heldI, heldJ, any] = state;
    const key = state.join();
    if (seen.has(key)) continue;
    seen.add(key);
    const [one, other] = [left[i], right[j]];
    if (one === undefined && other === undefined && any) return true;
    if (one !== undefined && (one.repeat === '*' || heldI)) pending.push([i + 1, j, false, heldJ, any]);
    if (other !== undefined && (other.repeat === '*' || heldJ)) pending.push([i, j + 1, heldI, false, any]);
    if (one === undefined || other === undefined || !overlap(one, other)) continue;
    const stayI = one.repeat !== '';
    const stayJ = other.repeat !== '';
    pending.push([stayI ? i : i + 1, stayJ ? j : j + 1, stayI, stayJ, true]);
  }
  return false;
}

function overlap(a: Token, b: Token): boolean {
  return a.ranges.some(([low, high]) => b.ranges.some(([from, to]) => low <= to && from <= high));
}

function tokensOf(glob: string): readonly Token[] {
  const tokens: Token[] = [];
  const chars = codePoints(glob);
  let at = 0;
  const point = (char: string | undefined): number => char?.codePointAt(0) ?? refuse('glob is invalid');
  const literal = (): number => {
    if (chars[at] === '\\') at++;
    return point(chars[at++]);
  };
  const charClass = (): Range[] => {
    const ranges: Range[] = [];
    while (chars[at] !== ']') {
      const low = literal();
      if (chars[at] === '-' && chars[at + 1] !== ']') {
        at++;
        const high = literal();
        if (high < low) refuse('glob has a range that is upside down');
        ranges.push([low, high]);
      } else {
        ranges.push([low, low]);
      }
    }
    at++;
    return ranges.length === 0 ? refuse('glob has an empty class') : ranges;
  };
  while (at < chars.length) {
    const char = chars[at];
    let ranges: readonly Range[];
    if (char === '*' || char === '+' || char === ']') return refuse('glob is invalid');
    if (char === '.') {
      at++;
      ranges = anything;
    } else if (char === '[') {
      at++;
      ranges = charClass();
    } else {
      const only = literal();
      ranges = [[only, only]];
    }
    const repeat = chars[at] === '*' || chars[at] === '+' ? chars[at++] : '';
    tokens.push({ ranges, repeat: repeat as Token['repeat'] });
  }
  return tokens;
}
