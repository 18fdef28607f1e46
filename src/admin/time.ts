/** Milliseconds since the epoch as RFC 3339 text, the form of every time in the admin API. */
export function formatTime(ms: number): string {
  return new Date(ms).toISOString();
}
