import { MalformedError } from '../../runtime/errors.ts';
import { type Builtins, text } from './args.ts';
import { textOfBytes } from './go-text.ts';
import { parseUrl, splitHost } from './go-url.ts';

/** `uri.*`: parts that are empty are left out. */
export const uriBuiltins: Builtins = {
  'uri.parse': (args) => {
    const url = parseUrl(bytesOf(text(args, 0)));
    const { hostname, port } = splitHost(url.host);
    const parts = {
      scheme: url.scheme,
      hostname,
      port,
      path: url.path,
      raw_path: url.rawPath === '' ? url.path : url.rawPath,
      raw_query: url.rawQuery,
      fragment: url.fragment,
    };
    return new Map(
      Object.entries(parts).flatMap(([name, part]) =>
        part === '' ? [] : [[name, textOfBytes(Buffer.from(part, 'latin1'))]],
      ),
    );
  },
  'uri.is_valid': ([written = null]) => {
    if (typeof written !== 'string' || written === '') return false;
    try {
      parseUrl(bytesOf(written));
      return true;
    } catch (error) {
      if (error instanceof MalformedError) return false;
      throw error;
    }
  },
};

function bytesOf(written: string): string {
  return Buffer.from(written).toString('latin1');
}
