import { createMetrics } from '../src/telemetry/metrics.ts';

const introduction = `# Metrics

Generated from \`src/telemetry/metrics/\`; do not edit.

Served in Prometheus' text format at \`/metrics\` of the admin server. Units are seconds and bytes. Label values come from closed
lists, or are our own SPIFFE IDs and the trust domains held; nothing that a peer can choose becomes a label. Beside these there
are prom-client's metrics of the process, \`svidecar_process_*\` and \`svidecar_nodejs_*\`.
`;

/** The text of docs/metrics.md. */
export function metricsReference(): string {
  const rows = createMetrics({ version: '', nodeVersion: '' })
    .list()
    .filter(({ name }) => !/^svidecar_(?:process|nodejs)_/.test(name))
    .map(({ name, type, labels, help }) => `| \`${name}\` | ${type} | ${labels.join(', ')} | ${help} |`);
  return `${introduction}\n| metric | type | labels | |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`;
}
