import { MalformedError } from '../runtime/errors.ts';

/** A trust domain name without scheme, e.g. `example.org` (SPIFFE-ID §2.1). Made only by the parsers of this file. */
export type TrustDomain = string & { readonly [trustDomainBrand]: true };
declare const trustDomainBrand: unique symbol;

/** A valid SPIFFE ID, e.g. `spiffe://example.org/service/web` (SPIFFE-ID §2). Made only by the parsers of this file. */
export type SpiffeId = string & { readonly [spiffeIdBrand]: true };
declare const spiffeIdBrand: unique symbol;

const scheme = 'spiffe://';
const maxIdBytes = 2048;
const maxTrustDomainBytes = 255;
const trustDomainCharacters = /^[a-z0-9._-]+$/;
const segmentCharacters = /^[a-zA-Z0-9._-]+$/;

/**
 * Parses a SPIFFE ID by SPIFFE-ID §2. Nothing is normalized: what is not already valid is refused with a
 * MalformedError (`new URL()` would turn `/a/../b` into another, valid ID).
 */
export function parseSpiffeId(text: string): SpiffeId {
  if (text === '') throw new MalformedError('SPIFFE ID is empty');
  if (text.length > maxIdBytes) throw new MalformedError(`SPIFFE ID is longer than ${maxIdBytes} bytes`);
  if (!text.startsWith(scheme)) throw new MalformedError('SPIFFE ID does not start with spiffe://');
  const slash = text.indexOf('/', scheme.length);
  const domain = slash === -1 ? text.slice(scheme.length) : text.slice(scheme.length, slash);
  parseTrustDomain(domain);
  if (slash !== -1) checkPath(text.slice(slash));
  return text as SpiffeId;
}

/** Parses a trust domain name, with or without the `spiffe://` in front; a path behind it is refused. */
export function parseTrustDomain(text: string): TrustDomain {
  const name = text.startsWith(scheme) ? text.slice(scheme.length) : text;
  if (name === '') throw new MalformedError('trust domain is missing');
  if (name.length > maxTrustDomainBytes) {
    throw new MalformedError(`trust domain is longer than ${maxTrustDomainBytes} bytes`);
  }
  if (!trustDomainCharacters.test(name)) {
    throw new MalformedError(
      /[A-Z]/.test(name)
        ? 'trust domain contains upper case'
        : 'trust domain has characters other than a-z, 0-9, dot, dash and underscore',
    );
  }
  return name as TrustDomain;
}

/** True for text that may stand as one segment of a SPIFFE ID's path (SPIFFE-ID §2.2). */
export function isPathSegment(text: string): boolean {
  return segmentCharacters.test(text) && text !== '.' && text !== '..';
}

export function trustDomainOf(id: SpiffeId): TrustDomain {
  const slash = id.indexOf('/', scheme.length);
  return (slash === -1 ? id.slice(scheme.length) : id.slice(scheme.length, slash)) as TrustDomain;
}

/** The path with its leading slash, or the empty string for the ID of a trust domain. */
export function pathOf(id: SpiffeId): string {
  const slash = id.indexOf('/', scheme.length);
  return slash === -1 ? '' : id.slice(slash);
}

/** The SPIFFE ID that stands for the trust domain itself: no path. */
export function idOfTrustDomain(trustDomain: TrustDomain): SpiffeId {
  return (scheme + trustDomain) as SpiffeId;
}

function checkPath(path: string): void {
  if (path === '/') throw new MalformedError('SPIFFE ID has a trailing slash');
  const segments = path.slice(1).split('/');
  segments.forEach((segment, index) => {
    if (segment === '') {
      throw new MalformedError(
        index === segments.length - 1
          ? 'SPIFFE ID has a trailing slash'
          : 'path of the SPIFFE ID has an empty segment',
      );
    }
    if (segment === '.' || segment === '..') {
      throw new MalformedError('path of the SPIFFE ID has a dot segment');
    }
    if (!segmentCharacters.test(segment)) {
      throw new MalformedError(
        'path of the SPIFFE ID has characters other than letters, numbers, dot, dash and underscore',
      );
    }
  });
}
