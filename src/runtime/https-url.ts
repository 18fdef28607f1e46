import { MalformedError } from './errors.ts';

const maxUrlLength = 2048;

/**
 * Checks the URL of an https server and gives its normal form: a host, no user name (a secret in the wrong place) and no
 * fragment (it would be lost). Throws MalformedError.
 */
export function parseHttpsUrl(text: string): string {
  const url = text.length <= maxUrlLength && URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || url.protocol !== 'https:') {
    throw new MalformedError('must be an https URL such as https://spire.example.org:8443');
  }
  if (url.username !== '' || url.password !== '')
    throw new MalformedError('must not contain a user name or password');
  if (url.hash !== '') throw new MalformedError('must not contain a fragment');
  return url.href;
}
