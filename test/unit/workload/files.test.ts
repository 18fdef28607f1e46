import assert from 'node:assert/strict';
import { chmod, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, type TestContext, test } from 'node:test';
import { AbortedError, AppError } from '../../../src/runtime/errors.ts';
import type { LogFields, Logger } from '../../../src/runtime/log.ts';
import { createJwtSigner, type JwtSigner } from '../../../src/spiffe/authority.ts';
import { formatBundleDocument } from '../../../src/spiffe/bundle-document.ts';
import { encodeCertificatesPem, encodePrivateKeyPem } from '../../../src/spiffe/certificate.ts';
import { parseTrustDomain } from '../../../src/spiffe/spiffe-id.ts';
import { createFilesSource, readIdentityFiles } from '../../../src/workload/files.ts';
import type { WatchEvent } from '../../../src/workload/identity-source.ts';
import {
  createTestAuthority,
  type Issued,
  type TestAuthority,
  testNow,
  x509Bundle,
} from '../../support/ca.ts';
import { tempDirectory, until } from '../../support/process.ts';

const own = parseTrustDomain('example.org');
const file = { certificate: 'svid.pem', privateKey: 'svid.key', bundle: 'bundle.pem' };

let ca: TestAuthority;
let signer: JwtSigner;
let first: Issued;
let second: Issued;

before(async () => {
  ca = await createTestAuthority(own);
  signer = await createJwtSigner();
  first = await ca.leaf();
  second = await ca.leaf();
});

type Line = Readonly<{ level: string; message: string; fields: LogFields }>;

/** A running source over real files, whose clock moves when the test says so. */
async function start(t: TestContext) {
  const directory = await tempDirectory(t);
  const at = (name: string): string => join(directory, name);
  const lines: Line[] = [];
  const write =
    (level: string) =>
    (fields: LogFields, message: string): void => {
      lines.push({ level, message, fields });
    };
  const log: Logger = {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
  };
  const stop = new AbortController();
  let now = testNow;
  let wake = (): void => {};
  let asleep = Promise.withResolvers<void>();
  const source = createFilesSource({
    files: {
      certificate: at(file.certificate),
      privateKey: at(file.privateKey),
      bundle: at(file.bundle),
      federatedBundles: [],
    },
    now: () => now,
    sleep: (_, signal) =>
      new Promise((resolve, reject) => {
        wake = resolve;
        signal.addEventListener('abort', () => reject(new AbortedError()), { once: true });
        asleep.resolve();
      }),
    log,
  });
  const running = source.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await running;
  });
  await asleep.promise;
  const lookOnce = async (): Promise<void> => {
    asleep = Promise.withResolvers<void>();
    wake();
    await asleep.promise;
  };
  await lookOnce();
  return {
    source,
    directory,
    at,
    lines,
    signal: stop.signal,
    setNow: (ms: number): void => {
      now = ms;
    },
    lookOnce,
    /** A look at the files, and the one that finds them the same. */
    look: async (): Promise<void> => {
      await lookOnce();
      await lookOnce();
    },
    put: async (
      { certificate, privateKey }: Issued,
      bundle: string | Buffer = encodeCertificatesPem([ca.certificate]),
    ): Promise<void> => {
      await writeFile(at(file.certificate), encodeCertificatesPem([certificate]));
      await writeFile(at(file.privateKey), encodePrivateKeyPem(privateKey), { mode: 0o600 });
      await writeFile(at(file.bundle), bundle);
    },
  };
}

/** Collects the events of a watch; `next` waits for one more. */
function collect<T>(events: AsyncIterable<WatchEvent<T>>) {
  const iterator = events[Symbol.asyncIterator]();
  return {
    async next(): Promise<WatchEvent<T>> {
      const step = await iterator.next();
      if (step.done === true) throw new Error('the watch ended');
      return step.value;
    },
  };
}

async function leafOf(
  event: Promise<WatchEvent<{ svids: readonly { chain: readonly { fingerprint: string }[] }[] }>>,
) {
  const given = await event;
  return given.kind === 'update' ? given.value.svids[0]?.chain[0]?.fingerprint : given.kind;
}

describe('the source files', () => {
  test('waits for files that are not there yet, and says so once', async (t) => {
    const { source, look, put, lines, signal } = await start(t);
    const x509 = collect(source.watchX509(signal));
    const missing = await x509.next();
    assert.equal(missing.kind, 'failed');
    assert.match(
      missing.kind === 'failed' ? missing.error.message : '',
      /svid\.pem does not exist: put the file there/,
    );
    assert.equal(missing.kind === 'failed' && missing.terminal, false);
    await look();
    await look();
    assert.deepEqual(
      lines.map(({ level, message }) => `${level} ${message}`),
      ['warn identity files are not usable yet'],
    );
    await put(first);
    await look();
    assert.equal(await leafOf(x509.next()), first.certificate.fingerprint);
    assert.equal(lines.at(-1)?.message, 'identity files were read');
  });

  test('keeps the last good pair while a new one is half written, says so once, and then takes it', async (t) => {
    const { source, look, put, at, lines, signal } = await start(t);
    await put(first);
    await look();
    const x509 = collect(source.watchX509(signal));
    assert.equal(await leafOf(x509.next()), first.certificate.fingerprint);
    await writeFile(at(file.certificate), encodeCertificatesPem([second.certificate]));
    await look();
    await look();
    const failed = await x509.next();
    assert.match(failed.kind === 'failed' ? failed.error.message : '', /does not match its certificate/);
    assert.equal(lines.filter(({ message }) => message.includes('last good identity stays')).length, 1);
    await writeFile(at(file.privateKey), encodePrivateKeyPem(second.privateKey));
    await look();
    assert.equal(await leafOf(x509.next()), second.certificate.fingerprint);
    assert.ok(lines.every(({ fields }) => !JSON.stringify(fields).includes('PRIVATE')));
  });

  test('follows files renamed into place and the ..data link that Kubernetes switches', async (t) => {
    const { source, look, directory, at, signal } = await start(t);
    const publish = async (version: string, { certificate, privateKey }: Issued): Promise<void> => {
      await mkdir(at(version));
      await writeFile(join(at(version), file.certificate), encodeCertificatesPem([certificate]));
      await writeFile(join(at(version), file.privateKey), encodePrivateKeyPem(privateKey));
      await writeFile(join(at(version), file.bundle), encodeCertificatesPem([ca.certificate]));
      await symlink(version, at('..data_tmp'));
      await rename(at('..data_tmp'), at('..data'));
    };
    await publish('..2026_1', first);
    for (const name of Object.values(file)) await symlink(join('..data', name), join(directory, name));
    await look();
    const x509 = collect(source.watchX509(signal));
    assert.equal(await leafOf(x509.next()), first.certificate.fingerprint);
    await publish('..2026_2', second);
    await rm(at('..2026_1'), { recursive: true });
    await look();
    assert.equal(await leafOf(x509.next()), second.certificate.fingerprint);
  });

  test('tells again when broken files are mended to what they were', async (t) => {
    const { source, look, put, at, signal } = await start(t);
    await put(first);
    await look();
    const x509 = collect(source.watchX509(signal));
    await x509.next();
    await rm(at(file.bundle));
    await look();
    assert.equal((await x509.next()).kind, 'failed');
    await put(first);
    await look();
    assert.equal(await leafOf(x509.next()), first.certificate.fingerprint);
  });

  test('takes a certificate that was not valid yet when its time comes, without a change of the files', async (t) => {
    const { source, look, put, setNow, signal } = await start(t);
    const future = await ca.leaf({ notBefore: testNow + 60_000 });
    await put(future);
    const x509 = collect(source.watchX509(signal));
    await x509.next();
    await look();
    const early = await x509.next();
    assert.match(early.kind === 'failed' ? early.error.message : '', /not valid before/);
    setNow(testNow + 60_000);
    await look();
    assert.equal(await leafOf(x509.next()), future.certificate.fingerprint);
  });

  test('refuses a renewal that has already expired and keeps what it has', async (t) => {
    const { source, look, put, signal } = await start(t);
    await put(first);
    await look();
    const x509 = collect(source.watchX509(signal));
    await x509.next();
    await put(await ca.leaf({ notAfter: testNow - 1 }));
    await look();
    const late = await x509.next();
    assert.match(late.kind === 'failed' ? late.error.message : '', /certificate expired at/);
  });

  test('gives JWT bundles of bundle documents, and withdraws them when the documents become PEM', async (t) => {
    const { source, look, put, signal } = await start(t);
    const document = formatBundleDocument({
      x509: x509Bundle(own, [ca]),
      jwt: { trustDomain: own, authorities: [signer.authority] },
    });
    await put(first, document);
    await look();
    const bundles = collect(source.watchJwtBundles(signal));
    const given = await bundles.next();
    assert.deepEqual(given.kind === 'update' && [...given.value.keys()], [own]);
    await put(first);
    await look();
    assert.equal((await bundles.next()).kind, 'revoked');
  });

  test('never takes a bundle that is being rewritten in place and cut short between two certificates', async (t) => {
    const { source, look, lookOnce, put, at, signal } = await start(t);
    const [old, more] = [ca.certificate, (await createTestAuthority('example.org')).certificate];
    await put(first, encodeCertificatesPem([old, more]));
    await look();
    const given: number[] = [];
    void (async () => {
      for await (const event of source.watchX509(signal))
        if (event.kind === 'update') given.push(event.value.bundles.get(own)?.authorities.length ?? 0);
    })();
    for (const bytes of [
      Buffer.alloc(0),
      encodeCertificatesPem([old]),
      encodeCertificatesPem([old, more, old]),
    ]) {
      await writeFile(at(file.bundle), bytes);
      await lookOnce();
    }
    await lookOnce();
    await until('the whole bundle', () => (given.length > 1 ? true : undefined));
    assert.deepEqual(given, [2, 3]);
  });

  test('warns once of a key that everybody may read', async (t) => {
    const { look, put, at, lines } = await start(t);
    await put(first);
    await chmod(at(file.privateKey), 0o644);
    await look();
    await put(second);
    await look();
    const flaws = lines.filter(({ message }) => message === 'identity files are usable, with a flaw');
    assert.equal(flaws.length, 1);
    assert.match(String(flaws[0]?.fields['warning']), /may be read by every user of this machine: chmod o-r/);
  });

  test('has no JWT-SVIDs and says what has', async (t) => {
    const { source, signal } = await start(t);
    await assert.rejects(
      source.fetchJwtSvids({ audiences: ['a'] }, signal),
      (error) =>
        error instanceof AppError && error.code === 'unavailable' && /use a Workload API/.test(error.message),
    );
  });

  test('can be read once, for those who only look', async (t) => {
    const { put, at } = await start(t);
    const files = {
      certificate: at(file.certificate),
      privateKey: at(file.privateKey),
      bundle: at(file.bundle),
      federatedBundles: [],
    };
    await assert.rejects(readIdentityFiles(files, testNow), /svid\.key does not exist/);
    await put(first);
    const { x509 } = await readIdentityFiles(files, testNow);
    assert.equal(x509.svids[0].chain[0].fingerprint, first.certificate.fingerprint);
  });
});
