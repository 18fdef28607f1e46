/**
 * A decision record as a line of OPA's console: `record` is its JSON, at `now` milliseconds since the epoch it is written.
 * Log pipelines tell decisions from other lines by `type`.
 */
export function consoleLine(record: string, now: number): string {
  const time = new Date(now).toISOString();
  const head = { type: 'openpolicyagent.org/decision_logs', level: 'info', msg: 'Decision Log', time };
  return `${JSON.stringify(head).slice(0, -1)},${record.slice(1)}\n`;
}
