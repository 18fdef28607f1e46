import { MalformedError } from '../runtime/errors.ts';
import { isPathSegment, parseSpiffeId, type SpiffeId } from './spiffe-id.ts';

/** A SPIFFE ID with `{sub}` for one whole segment of its path. */
export type IdTemplate = Readonly<{ before: string; after: string }>;

const placeholder = '{sub}';

/** Parses `spiffe://td/agent/{sub}`; throws MalformedError unless `{sub}` is one whole segment of a valid ID. */
export function parseIdTemplate(text: string): IdTemplate {
  const parts = text.split(placeholder);
  const [before, after] = parts;
  if (parts.length !== 2 || before === undefined || after === undefined) {
    throw new MalformedError('must have {sub} once, as in spiffe://example.org/agent/{sub}');
  }
  if (!/^spiffe:\/\/[^/]+\/(?:.*\/)?$/.test(before) || (after !== '' && !after.startsWith('/'))) {
    throw new MalformedError('must have {sub} as one whole segment of the path');
  }
  parseSpiffeId(`${before}x${after}`);
  return Object.freeze({ before, after });
}

/** The ID for a subject, or undefined for one that is not a valid segment. */
export function fillIdTemplate({ before, after }: IdTemplate, subject: string): SpiffeId | undefined {
  if (!isPathSegment(subject)) return undefined;
  try {
    return parseSpiffeId(before + subject + after);
  } catch (error) {
    if (error instanceof MalformedError) return undefined;
    throw error;
  }
}

export function formatIdTemplate({ before, after }: IdTemplate): string {
  return before + placeholder + after;
}
