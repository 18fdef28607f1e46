import { RE2JS } from 're2js';
import { LimitError, MalformedError } from '../../runtime/errors.ts';
import { type Builtins, boundedCount, maxText, refuse, smallInteger, text } from './args.ts';
import { globsMeet } from './glob-meet.ts';

const maxPatterns = 100;
/** Instructions of all patterns that are kept: short patterns can compile to millions, at a hundred bytes each. */
const maxKeptSize = 200_000;
const maxPatternLength = 64 * 1024;

type Match = Readonly<{ start: number; end: number; groups: readonly (string | undefined)[] }>;

/** `regex.*`, by an engine whose time is linear in the text. */
export function createRegexBuiltins(): Builtins {
  const compiled = new Map<string, RE2JS>();
  let keptSize = 0;

  function compile(pattern: string): RE2JS {
    const held = compiled.get(pattern);
    if (held !== undefined) return held;
    if (pattern.length > maxPatternLength) throw new LimitError('regular expression is too long');
    let made: RE2JS;
    try {
      made = RE2JS.compile(pattern);
    } catch (error) {
      throw new MalformedError('regular expression is invalid', { cause: error });
    }
    const size = made.programSize();
    if (size > maxKeptSize) return made;
    if (compiled.size >= maxPatterns || keptSize + size > maxKeptSize) {
      compiled.clear();
      keptSize = 0;
    }
    compiled.set(pattern, made);
    keptSize += size;
    return made;
  }

  /** Matches from left to right that do not overlap; an empty one right behind another match does not count. */
  function* matches(pattern: string, whole: string): Generator<Match> {
    const matcher = compile(pattern).matcher(whole);
    let previous = -1;
    for (let at = 0; at <= whole.length && matcher.find(at); ) {
      const [start, end] = [matcher.start(), matcher.end()];
      const count = matcher.groupCount();
      if (end > start || start !== previous) {
        const groups = Array.from({ length: count + 1 }, (_, group) => matcher.group(group) ?? undefined);
        yield { start, end, groups };
      }
      previous = end;
      at = end > start ? end : end + ((whole.codePointAt(end) ?? 0) > 0xffff ? 2 : 1);
    }
  }

  return {
    'regex.find_n': (args) => {
      const [pattern, whole, limit] = [text(args, 0), text(args, 1), smallInteger(args, 2)];
      const found: string[] = [];
      for (const { start, end } of matches(pattern, whole)) {
        if (limit >= 0 && found.length >= limit) break;
        found.push(whole.slice(start, end));
        boundedCount(found.length);
      }
      return found;
    },
    'regex.replace': (args) => {
      const [whole, pattern, template] = [text(args, 0), text(args, 1), text(args, 2)];
      const names = compile(pattern).namedGroups();
      const parts: string[] = [];
      let [from, length] = [0, 0];
      for (const match of matches(pattern, whole)) {
        const part = whole.slice(from, match.start) + expand(template, match.groups, names);
        parts.push(part);
        length += part.length;
        if (length > maxText) throw new LimitError('regex.replace gave a text that is too long');
        from = match.end;
      }
      return parts.join('') + whole.slice(from);
    },
    'regex.split': (args) => {
      const [pattern, whole] = [text(args, 0), text(args, 1)];
      compile(pattern);
      if (pattern !== '' && whole === '') return [''];
      const parts: string[] = [];
      let [from, end] = [0, 0];
      for (const match of matches(pattern, whole)) {
        end = match.start;
        if (match.end !== 0) parts.push(whole.slice(from, match.start));
        from = match.end;
        boundedCount(parts.length);
      }
      return end === whole.length ? parts : [...parts, whole.slice(from)];
    },
    'regex.template_match': (args) => {
      const [template, whole, open, close] = [text(args, 0), text(args, 1), text(args, 2), text(args, 3)];
      if (Buffer.byteLength(open) !== 1 || Buffer.byteLength(close) !== 1) {
        return refuse('a delimiter of a template is one character');
      }
      return compile(templatePattern(template, open, close))
        .matcher(whole)
        .find();
    },
    'regex.globs_match': (args) => globsMeet(text(args, 0), text(args, 1)),
  };

  function templatePattern(template: string, open: string, close: string): string {
    let [pattern, level, from, start] = ['^', 0, 0, 0];
    for (let at = 0; at < template.length; at++) {
      const char = template.charAt(at);
      if (char === open) {
        if (++level === 1) start = at;
      } else if (char === close) {
        if (--level < 0) return refuse('delimiters of a template are unbalanced');
        if (level > 0) continue;
        const inner = template.slice(start + 1, at);
        compile(`^${inner}$`);
        pattern += `${RE2JS.quote(template.slice(from, start))}(${inner})`;
        from = at + 1;
      }
    }
    if (level !== 0) return refuse('delimiters of a template are unbalanced');
    return `${pattern}${RE2JS.quote(template.slice(from))}$`;
  }
}

/** `$1`, `${1}`, `$name`, `${name}` and `$$`, by Go's rules: a name is as long as it can be, an unknown one is empty. */
function expand(
  template: string,
  groups: readonly (string | undefined)[],
  names: Readonly<Record<string, number>>,
): string {
  return template.replace(
    /\$(?:\$|(?<plain>[\p{L}\p{Nd}_]+)|\{(?<braced>[\p{L}\p{Nd}_]+)\})/gu,
    (whole, ...rest: unknown[]) => {
      if (whole === '$$') return '$';
      const { plain, braced } = rest.at(-1) as { plain?: string; braced?: string };
      const name = plain ?? braced ?? '';
      const index = /^\d+$/.test(name) ? Number(name) : Object.hasOwn(names, name) ? names[name] : undefined;
      return index === undefined ? '' : (groups[index] ?? '');
    },
  );
}
