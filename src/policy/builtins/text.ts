import {
  type Builtins,
  boundedCount,
  boundedText,
  codePoints,
  elements,
  refuse,
  smallInteger,
  text,
} from './args.ts';
import type { Value } from './value.ts';

/** `strings.*`, `indexof_n`, `glob.quote_meta`; positions count code points. */
export const textBuiltins: Builtins = {
  'strings.any_prefix_match': (args) => anyPair(args, (one, affix) => one.startsWith(affix)),
  'strings.any_suffix_match': (args) => anyPair(args, (one, affix) => one.endsWith(affix)),
  'strings.count': (args) => {
    const [whole, part] = [text(args, 0), text(args, 1)];
    return part === '' ? codePoints(whole).length + 1 : whole.split(part).length - 1;
  },
  'strings.split_n': (args) => {
    const [whole, separator, limit] = [text(args, 0), text(args, 1), smallInteger(args, 2)];
    const parts = separator === '' ? codePoints(whole) : whole.split(separator);
    boundedCount(parts.length);
    return limit < 0 ? parts.slice(limit) : parts.slice(0, limit);
  },
  indexof_n: (args) => {
    const [whole, part] = [text(args, 0), text(args, 1)];
    if (part === '') return refuse('empty search text');
    const found: number[] = [];
    let [points, from] = [0, 0];
    for (let at = whole.indexOf(part); at !== -1; at = whole.indexOf(part, at + 1)) {
      points += codePoints(whole.slice(from, at)).length;
      from = at;
      found.push(points);
    }
    boundedCount(found.length);
    return found;
  },
  'glob.quote_meta': (args) => boundedText(text(args, 0).replace(/[*?\\[\]{}]/g, '\\$&')),
};

/** True if any of the first operand's texts and any of the second's fit. */
function anyPair(args: readonly Value[], fits: (one: string, affix: string) => boolean): boolean {
  const [ones, affixes] = [texts(args, 0), texts(args, 1)];
  return ones.some((one) => affixes.some((affix) => fits(one, affix)));
}

function texts(args: readonly Value[], index: number): readonly string[] {
  if (typeof args[index] === 'string') return [args[index]];
  return elements(args, index).map((one) => text([one], 0));
}
