import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { type Builtin, type Builtins, text } from './args.ts';

const hash =
  (algorithm: string): Builtin =>
  (args) =>
    createHash(algorithm).update(text(args, 0)).digest('hex');

const hmac =
  (algorithm: string): Builtin =>
  (args) =>
    createHmac(algorithm, text(args, 1)).update(text(args, 0)).digest('hex');

/** Hashes and MACs over the UTF-8 of texts, in hexadecimal. */
export const cryptoBuiltins: Builtins = {
  'crypto.md5': hash('md5'),
  'crypto.sha1': hash('sha1'),
  'crypto.sha256': hash('sha256'),
  'crypto.hmac.md5': hmac('md5'),
  'crypto.hmac.sha1': hmac('sha1'),
  'crypto.hmac.sha256': hmac('sha256'),
  'crypto.hmac.sha512': hmac('sha512'),
  'crypto.hmac.equal': (args) => {
    const [a, b] = [Buffer.from(text(args, 0)), Buffer.from(text(args, 1))];
    return a.length === b.length && timingSafeEqual(a, b);
  },
};
