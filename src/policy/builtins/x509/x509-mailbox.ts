/** An email address in two parts (RFC 2821 §4.1.2). */
export type Mailbox = Readonly<{ local: string; domain: string }>;

const quoted = /^"((?:[ !#-[\]-~]|\\[ -~])*)"@(.*)$/s;
const atoms = /^((?:[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]|\\[^])+)@(.*)$/s;

/**
 * Reads a mailbox, with what Go allows beyond the RFC: blanks inside quotes, escapes outside of them. Undefined for a text
 * that is none, and for one with control characters.
 */
export function parseMailbox(written: string): Mailbox | undefined {
  const [, inQuotes, domain = ''] = quoted.exec(written) ?? [];
  if (inQuotes !== undefined) return finish(unescape(inQuotes), domain);
  if (written.startsWith('"')) return undefined;
  const [, local, after = ''] = atoms.exec(written) ?? [];
  if (local === undefined) return undefined;
  const plain = unescape(local);
  return plain.startsWith('.') || plain.endsWith('.') || plain.includes('..')
    ? undefined
    : finish(plain, after);
}

function unescape(local: string): string {
  return local.replaceAll(/\\([^])/g, '$1');
}

/** Labels of visible ASCII, none of them empty; no domain at all counts. */
function finish(local: string, domain: string): Mailbox | undefined {
  const labels = domain === '' ? [] : domain.split('.');
  return labels.every((label) => /^[!-~]+$/.test(label)) ? { local, domain } : undefined;
}
