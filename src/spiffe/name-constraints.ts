import { MalformedError } from '../runtime/errors.ts';
import { derTag, readSingleDer, splitDer } from './der.ts';

/** A name constraints extension (RFC 5280 §4.2.1.10). Only URI constraints can be evaluated. */
export type NameConstraints = Readonly<{
  /** Host constraints; undefined when URIs are not limited to a permitted list. */
  permittedUriHosts: readonly string[] | undefined;
  excludedUriHosts: readonly string[];
  /** GeneralName tags of constraints of every other kind; a path with a name of such a kind has to be refused. */
  otherTypes: ReadonlySet<number>;
}>;

const permittedTag = 0xa0;
const excludedTag = 0xa1;
const uriTag = 6;

/** Decodes the extension's value; `undefined` when the certificate has none. Throws MalformedError. */
export function decodeNameConstraints(der: Buffer | undefined): NameConstraints | undefined {
  if (der === undefined) return undefined;
  const permitted: string[] = [];
  const excludedUriHosts: string[] = [];
  const otherTypes = new Set<number>();
  for (const list of splitDer(readSingleDer(der, derTag.sequence).content)) {
    if (list.tag !== permittedTag && list.tag !== excludedTag) {
      throw new MalformedError('name constraints have an unknown element');
    }
    for (const subtree of splitDer(list.content)) {
      // minimum and maximum must be absent under RFC 5280; with them the subtree means something else.
      const [base, ...bounds] = splitDer(subtree.content);
      if (base === undefined || bounds.length > 0)
        throw new MalformedError('name constraints have a broken subtree');
      const type = base.tag & 0x1f;
      if (type !== uriTag) otherTypes.add(type);
      else (list.tag === permittedTag ? permitted : excludedUriHosts).push(base.content.toString('latin1'));
    }
  }
  return {
    permittedUriHosts: permitted.length > 0 ? permitted : undefined,
    excludedUriHosts,
    otherTypes,
  };
}

/** True when a URI with this host satisfies the constraints. A host constraint with a leading dot means subdomains. */
export function permitsUriHost(constraints: NameConstraints, host: string): boolean {
  const matches = (constraint: string): boolean =>
    constraint.startsWith('.')
      ? host.endsWith(constraint.toLowerCase()) && host.length > constraint.length
      : host === constraint.toLowerCase();
  if (constraints.excludedUriHosts.some(matches)) return false;
  return constraints.permittedUriHosts === undefined || constraints.permittedUriHosts.some(matches);
}
