/** What a value or a member costs beside its text, in bytes. */
const memberBytes = 16;

/** Roughly how many bytes a JSON value takes in memory, however deep it is; counting ends beyond `limit`. */
export function roughSize(value: unknown, limit: number): number {
  const pending: unknown[] = [value];
  let size = 0;
  while (pending.length > 0 && size <= limit) {
    const next = pending.pop();
    size += memberBytes;
    if (typeof next === 'string') size += next.length;
    else if (Array.isArray(next)) for (const item of next) pending.push(item);
    else if (typeof next === 'object' && next !== null) {
      for (const [key, member] of Object.entries(next)) {
        size += key.length;
        pending.push(member);
      }
    }
  }
  return size;
}
