import { listOptions, type Option } from '../src/config/options.ts';
import { formatYaml } from '../src/config/yaml.ts';

const introduction = `# Configuration

Generated from \`src/config/schema.ts\`; do not edit.

One file, YAML or JSON, given as \`--config FILE\`. Unknown keys are errors, and every problem is reported at once with its key
path (exit code 64). Flags override the environment, the environment overrides the file. An empty value, in the file or in a
variable, means that the key is not set.

- A duration is written \`150ms\`, \`10s\`, \`5m\`, \`1h30m\`; a size \`512B\`, \`64KiB\`, \`4MiB\`; a file mode \`"0660"\`, in quotes.
- A socket address is \`unix:///PATH\` or \`tcp://IP:PORT\`. TCP is for loopback only, since nothing else protects what is served there.
- A relative file name counts from the folder of the config file.
- A SPIFFE ID pattern has a literal trust domain and a path in which \`*\` is any number of any characters:
  \`spiffe://example.org/agents/*\`.

Every option of one value has a variable: \`SVIDECAR_\` and its key path in upper case with underscores, such as
\`SVIDECAR_ADMIN_LISTEN\`. A \`SVIDECAR_\` variable that names no option is only a warning, because Kubernetes injects such names for
a Service called svidecar. Beside those there are:

| variable | means |
| --- | --- |
| \`SPIFFE_ENDPOINT_SOCKET\` | \`identity.workload_api.address\`, when neither the file nor its own variable sets it |
| \`SPIFFE_TRUST_DOMAIN\` | \`trust_domain\`, and wins over the file |
| \`TLS_MODE\` | \`spiffe\` is \`identity.source: workload_api\`, \`file\` is \`identity.source: files\`; it wins over the file |

A key that this version does not know is refused: a protection that is configured but not there must not go unnoticed.
`;

/** The text of docs/config.md. */
export function configReference(): string {
  const options = listOptions();
  const sections = new Map<string, Option[]>([['Top level', []]]);
  for (const option of options) {
    if (option.kind === 'section') continue;
    const key = sectionOf(option);
    sections.set(key, [...(sections.get(key) ?? []), option]);
  }
  return [introduction, ...[...sections].map(([title, rows]) => section(title, rows))].join('\n');
}

function section(title: string, rows: readonly Option[]): string {
  const heading = title === 'Top level' ? title : `\`${title}\``;
  return `## ${heading}\n\n| key | type | default | |\n| --- | --- | --- | --- |\n${rows.map(row).join('\n')}\n`;
}

function row(option: Option): string {
  const bounds = option.bounds === undefined ? '' : `, ${option.bounds}`;
  const cells = [`\`${option.path}\``, `${option.type}${bounds}`, defaultOf(option), option.sentence ?? ''];
  return `| ${cells.map((cell) => cell.replaceAll('|', String.raw`\|`)).join(' | ')} |`;
}

function defaultOf(option: Option): string {
  if (option.otherwise !== undefined) return option.otherwise;
  if (option.default === undefined) return option.required ? 'required' : '';
  const text =
    typeof option.default === 'string' ? formatYaml(option.default).trim() : JSON.stringify(option.default);
  return `\`${text}\``;
}

function sectionOf({ path }: Option): string {
  const [first = '', ...rest] = path.split('.');
  return rest.length === 0 ? 'Top level' : first;
}
