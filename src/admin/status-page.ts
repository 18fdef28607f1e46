import { createHash } from 'node:crypto';
import type { Status } from './status.ts';

const style = `
:root { color-scheme: light dark; --line: light-dark(#d9dee5, #30363d); --soft: light-dark(#5b6672, #9aa5b1);
  --card: light-dark(#fff, #161b22); --good: light-dark(#17753c, #4cc077); --bad: light-dark(#b3261e, #ff8b82); }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: light-dark(#f5f7f9, #0d1117);
  font: 15px/1.5 system-ui, sans-serif }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; margin-bottom: 1rem }
h1 { font-size: 1.4rem; margin: 0 }
h2 { font-size: 1rem; margin: 0 0 .5rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin-bottom: 1rem;
  overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: .85rem; white-space: nowrap }
th, td { padding: .3rem 1rem .3rem 0; border-top: 1px solid var(--line); vertical-align: top }
tr:first-child th { border-top: 0 }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere }
td:has(code) { min-width: 13rem }
meter { width: 6rem; height: .7rem; vertical-align: baseline }
p { margin: .25rem 0 }
.keep { white-space: nowrap }
.soft { color: var(--soft) }
.good { color: var(--good) }
.bad { color: var(--bad) }
`;

/** The page brings its one style sheet and nothing else: no script, no image, no other host. */
export const pageSecurityPolicy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

/** Text that is safe by construction: made only by `html` and its escaping. */
type Html = Readonly<{ text: string }>;

/** The status as a page for people; whatever a value holds is shown as text. */
export function renderStatusPage(status: Status): string {
  const { identity } = status;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>svidecar ${identity.trust_domain ?? ''}</title>
<style>${{ text: style }}</style>
</head>
<body>
<header>
<h1>svidecar</h1>
${status.ready ? html`<b class="good">ready</b>` : html`<b class="bad">not ready</b>`}
<span class="soft">version ${status.version}, up ${span(status.started_at, status.time)}, seen <span class="keep">${status.time}</span></span>
</header>
${status.missing.length === 0 ? html`` : missing(status)}
${card('Identities', identities(status))}
${card('Trust domains', trustDomains(status))}
${card('Envoys', envoys(status))}
${status.outputs.length === 0 ? html`` : card('Files', outputs(status))}
${status.policy === undefined ? html`` : card('Policy', policy(status.policy, status.time))}
${status.policy === undefined ? html`` : card('Last decisions', decisions(status))}
</body>
</html>
`.text;
}

function missing(status: Status): Html {
  return card(
    'Missing',
    html`${status.missing.map(({ part, reason }) => html`<p><b>${part}</b> ${reason}</p>`)}`,
  );
}

function identities({ identity, time }: Status): Html {
  const problem = identity.problem === undefined ? html`` : html`<p class="bad">${identity.problem}</p>`;
  const rows = identity.svids.map(
    (svid) => html`<tr><td><code>${svid.spiffe_id}</code></td><td>${svid.hint ?? ''}</td>
<td class="keep">${remaining(svid.not_before, svid.expires_at, time)}</td><td><code class="keep">${svid.serial}</code></td></tr>`,
  );
  return html`<p class="soft">from ${identity.source}</p>${problem}${table(['SPIFFE ID', 'hint', 'expires', 'serial'], rows)}`;
}

function trustDomains({ trust_domains: domains, time }: Status): Html {
  const rows = domains.map(
    (
      domain,
    ) => html`<tr><td><code>${domain.name}</code>${domain.own ? html` <span class="soft">own</span>` : html``}</td>
<td>${domain.x509_authorities}</td><td>${domain.jwt_authorities}</td>
<td class="keep">${domain.expires_at === undefined ? 'not trusted' : `in ${span(time, domain.expires_at)}`}</td></tr>`,
  );
  return table(['trust domain', 'X.509 authorities', 'JWT authorities', 'last one expires'], rows);
}

function envoys({ envoys: streams, time }: Status): Html {
  const rows = streams.map(
    (
      envoy,
    ) => html`<tr><td><code>${envoy.node_id}</code> <span class="soft">${envoy.cluster}</span></td><td>${envoy.protocol}</td>
<td>${envoy.names.map((name) => html`<code>${name}</code> `)}</td>
<td class="${envoy.ack === 'nacked' ? 'bad' : envoy.ack === 'acked' ? 'good' : 'soft'}">${envoy.ack}
${envoy.nack_message ?? ''}</td><td class="keep">${span(envoy.opened_at, time)}</td></tr>`,
  );
  return table(['node', 'protocol', 'secrets', 'answer', 'connected for'], rows);
}

function outputs({ outputs: directories, time }: Status): Html {
  const rows = directories.map(
    ({ directory, written_at: writtenAt, problem }) => html`<tr><td><code>${directory}</code></td>
<td class="keep">${ago(writtenAt, time)}</td><td class="bad">${problem ?? ''}</td></tr>`,
  );
  return table(['directory', 'written', 'problem'], rows);
}

function ago(at: string | undefined, now: string): string {
  return at === undefined ? 'not yet' : `${span(at, now)} ago`;
}

function policy({ engine, ready, problem, bundles }: NonNullable<Status['policy']>, now: string): Html {
  const rows = bundles.map(
    (bundle) => html`<tr><td>${bundle.name}</td><td><code>${bundle.revision ?? ''}</code></td>
<td class="keep">${ago(bundle.activated_at, now)}</td>
<td class="keep">${bundle.service === undefined ? 'a file' : ago(bundle.service.answered_at, now)}</td>
<td class="bad">${bundle.problem ?? ''}</td></tr>`,
  );
  return html`<p>${engine} <b class="${ready ? 'good' : 'bad'}">${ready ? 'ready' : 'not ready'}</b></p>
${rows.length > 0 || problem === undefined ? html`` : html`<p class="bad">${problem}</p>`}
${rows.length === 0 ? html`` : table(['bundle', 'revision', 'in force since', 'service answered', 'problem'], rows)}`;
}

function decisions({ decisions: recent, time }: Status): Html {
  const rows = recent.map(
    (decision) => html`<tr><td class="keep">${span(decision.time, time)} ago</td>
<td class="${decision.outcome === 'allow' ? 'good' : 'bad'}">${decision.outcome}</td><td>${decision.reason_code ?? ''}</td>
<td><code>${decision.peer ?? ''}</code></td><td><code>${decision.request ?? ''}</code></td></tr>`,
  );
  return table(['when', 'outcome', 'reason', 'peer', 'request'], rows);
}

function card(title: string, content: Html): Html {
  return html`<section><h2>${title}</h2>${content}</section>`;
}

function table(columns: readonly string[], rows: readonly Html[]): Html {
  if (rows.length === 0) return html`<p class="soft">none</p>`;
  return html`<table><tr>${columns.map((column) => html`<th>${column}</th>`)}</tr>${rows}</table>`;
}

/** How much of a life is left, as a bar and in words. */
function remaining(from: string, until: string, now: string): Html {
  const left = Date.parse(until) - Date.parse(now);
  if (left <= 0) return html`<span class="bad">expired ${span(until, now)} ago</span>`;
  const share = left / Math.max(1, Date.parse(until) - Date.parse(from));
  return html`<meter min="0" max="1" low="0.2" value="${share.toFixed(2)}"></meter> in ${span(now, until)}`;
}

/** A span of time in its largest two units. */
function span(from: string, until: string): string {
  const seconds = Math.max(0, Math.round((Date.parse(until) - Date.parse(from)) / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function html(
  parts: TemplateStringsArray,
  ...values: readonly (Html | readonly Html[] | string | number)[]
): Html {
  return { text: parts.reduce((text, part, index) => text + inner(values[index - 1] ?? '') + part) };
}

function inner(value: Html | readonly Html[] | string | number): string {
  if (typeof value === 'string' || typeof value === 'number') return escapeHtml(String(value));
  return 'text' in value ? value.text : value.map(({ text }) => text).join('');
}

function escapeHtml(text: string): string {
  const entities: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return text.replaceAll(/[&<>"']/g, (character) => entities[character] ?? '');
}
