import {
  alternativeNames,
  basicConstraints,
  bits,
  certificate,
  certificateRequest,
  clientAuth,
  der,
  ecKey,
  edKey,
  extendedKeyUsage,
  extension,
  general,
  generalizedTime,
  integer,
  keyId,
  keyUsage,
  name,
  nameConstraints,
  oid,
  pem,
  pssKey,
  rsaKey,
  type SigningKey,
  sequence,
  serverAuth,
  spkiOf,
  type Template,
  utcTime,
} from '../support/der-certificates.ts';

// Made once for all cases of a run: what takes time is keys of RSA.
const keys = {
  rsa: rsaKey(),
  rsa384: rsaKey('sha384'),
  rsa512: rsaKey('sha512', 3072),
  rsaSha1: rsaKey('sha1'),
  rsaMd5: rsaKey('md5'),
  p256: ecKey(),
  other256: ecKey(),
  p224: ecKey('P-224'),
  p384: ecKey('P-384', 'sha384'),
  p521: ecKey('P-521', 'sha512'),
  k1: ecKey('secp256k1'),
  ecSha1: ecKey('P-256', 'sha1'),
  ed: edKey(),
};

const cn = (text: string): Buffer => name(['2.5.4.3', text]);
const svidNames = alternativeNames([general.uri('spiffe://example.org/ns/a/sa/b')]);
const text = (template: Template): string => pem('CERTIFICATE', certificate(template));

/** Numbers that are the same in every run. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function pick<T>(random: () => number, list: readonly T[]): T {
  return list[Math.floor(random() * list.length)] as T;
}

export function certificateCases(): Record<string, string> {
  const key = keys.p256;
  const plain = certificate({ key });
  const two = pem('CERTIFICATE', plain) + text({ key: keys.ed });
  const withExtension = (...extensions: readonly Buffer[]): string => text({ key, extensions });
  const withName = (subject: Buffer): string => text({ key, subject });
  const withTimes = (notBefore: Buffer, notAfter: Buffer): string => text({ key, notBefore, notAfter });
  const cases: Record<string, string> = {
    ...Object.fromEntries(Object.entries(keys).map(([kind, one]) => [`key ${kind}`, text({ key: one })])),
    'pss 32': text({ key: pssKey(keys.rsa) }),
    'pss 20': text({ key: pssKey(keys.rsa, 20) }),
    'pss other mask': text({ key: pssKey(keys.rsa, 32, 2) }),
    x25519: text({ key, spki: sequence(sequence(oid('1.3.101.110')), bits(Buffer.alloc(32, 9))) }),
    'rsa without NULL': text({
      key,
      spki: sequence(sequence(oid('1.2.840.113549.1.1.1')), bits(Buffer.of(0x30, 0))),
    }),
    'rsa even exponent': text({
      key,
      spki: sequence(
        sequence(oid('1.2.840.113549.1.1.1'), der(5)),
        bits(sequence(integer(2n ** 1024n + 1n), integer(4))),
      ),
    }),
    dsa: text({
      key,
      spki: sequence(
        sequence(oid('1.2.840.10040.4.1'), sequence(integer(23), integer(11), integer(4))),
        bits(integer(2n ** 70n)),
      ),
    }),
    'dsa zero': text({
      key,
      spki: sequence(
        sequence(oid('1.2.840.10040.4.1'), sequence(integer(23), integer(0), integer(4))),
        bits(integer(8)),
      ),
    }),
    'ed with parameters': text({
      key,
      spki: sequence(sequence(oid('1.3.101.112'), der(5)), bits(Buffer.alloc(32, 9))),
    }),
    'unknown key': text({ key, spki: sequence(sequence(oid('1.2.3.4')), bits(Buffer.of(1, 2))) }),
    'point off the curve': text({
      key,
      spki: Buffer.from(spkiOf(key).map((byte, at, all) => (at === all.length - 1 ? byte ^ 1 : byte))),
    }),
    nothing: '',
    'base64 of DER': plain.toString('base64'),
    'base64 of two DER': Buffer.concat([plain, certificate({ key: keys.rsa })]).toString('base64'),
    'base64 in lines': plain.toString('base64').replaceAll(/(.{76})/g, '$1\r\n'),
    'base64 without padding': plain.toString('base64').replaceAll('=', ''),
    'base64 of PEM': Buffer.from(two).toString('base64'),
    'DER and more': Buffer.concat([plain, Buffer.of(0)]).toString('base64'),
    two: two,
    'text before': `subject=x\n${two}`,
    'text between': two.replace('-----END CERTIFICATE-----\n', '-----END CERTIFICATE-----\nissuer: x\n\n'),
    'text behind': `${two}\nmore`,
    CRLF: two.replaceAll('\n', '\r\n'),
    'blanks in lines': two.replaceAll('\n', ' \t\n'),
    'one line': `-----BEGIN CERTIFICATE-----\n${plain.toString('base64')}\n-----END CERTIFICATE-----`,
    headers: two.replace('-----BEGIN CERTIFICATE-----\n', '-----BEGIN CERTIFICATE-----\nA: b\nC: d\n\n'),
    'other label': pem('X509 CERTIFICATE', plain),
    'key behind it': two + pem('PRIVATE KEY', Buffer.of(1, 2)),
    'no end': '-----BEGIN CERTIFICATE-----\nAAAA\n',
    'empty block': '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n',
    'broken base64': `-----BEGIN CERTIFICATE-----\nA*AA\n-----END CERTIFICATE-----\n${two}`,
    'begin twice': `-----BEGIN CERTIFICATE-----\nAAAA\n${two}`,
    'end of another': two.replace('END CERTIFICATE', 'END CERTIFICATES'),
    'no base64': 'hello world',
    svid: withExtension(svidNames, keyUsage(0x80, 7), extendedKeyUsage(serverAuth, clientAuth)),
    'every name': withExtension(
      alternativeNames([
        general.dns('*.example.org'),
        general.dns(''),
        general.email('a@b.example'),
        general.uri('https://user:pass@Example.ORG:8443/a%2Fb/ü'.replace('ü', '%C3%BC') + '?q=1#f%20g'),
        general.uri('urn:uuid:1'),
        general.uri('spiffe://example.org'),
        general.address(10, 0, 0, 1),
        general.address(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
        general.address(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1),
        general.directory(cn('x')),
        der(0x88, Buffer.of(0x2a, 3)),
      ]),
    ),
    'no name that is read': withExtension(alternativeNames([general.directory(cn('x'))], true)),
    'empty names': withExtension(alternativeNames([])),
    'address of 5 bytes': withExtension(alternativeNames([general.address(1, 2, 3, 4, 5)])),
    'DNS beyond ASCII': withExtension(alternativeNames([general.dns('exämple')])),
    'URI that is none': withExtension(alternativeNames([general.uri('http://[::1')])),
    'URI with a dot at the end': withExtension(alternativeNames([general.uri('http://example.org./')])),
    'URI of bytes': withExtension(alternativeNames([general.uri('spiffe://a/%ff%c3%28')])),
    ca: withExtension(
      basicConstraints(true, 0),
      keyUsage(0x06, 1),
      extension('2.5.29.14', der(4, keyId(key))),
    ),
    'ca with long path': withExtension(basicConstraints(true, 3_000_000_000)),
    'constraints of no CA': withExtension(basicConstraints(false)),
    'path of no CA': withExtension(basicConstraints(false, 1)),
    'negative path': withExtension(extension('2.5.29.19', sequence(der(2, Buffer.of(0xff))))),
    'path beyond 64 bits': withExtension(extension('2.5.29.19', sequence(integer(2n ** 63n)))),
    'boolean that is neither': withExtension(extension('2.5.29.19', sequence(der(1, Buffer.of(1))))),
    'key usage of 9 bits': withExtension(extension('2.5.29.15', bits(Buffer.of(0xff, 0x80), 7))),
    'empty key usage': withExtension(extension('2.5.29.15', bits(Buffer.of()))),
    'usage padding': withExtension(extension('2.5.29.15', bits(Buffer.of(0xff), 7))),
    usages: withExtension(
      extendedKeyUsage(
        '2.5.29.37.0',
        ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((last) => `1.3.6.1.5.5.7.3.${last}`),
        '1.3.6.1.4.1.311.10.3.3',
        '2.16.840.1.113730.4.1',
        '1.3.6.1.4.1.311.2.1.22',
        '1.3.6.1.4.1.311.61.1.1',
        '1.2.3.4',
      ),
    ),
    'no usages': withExtension(extendedKeyUsage()),
    'key ids': withExtension(
      extension('2.5.29.14', der(4, keyId(key))),
      extension('2.5.29.35', sequence(der(0x80, keyId(key)), der(0x82, integer(5)))),
    ),
    'empty key ids': withExtension(
      extension('2.5.29.14', der(4)),
      extension('2.5.29.35', sequence(der(0x80))),
    ),
    'authority without key': withExtension(extension('2.5.29.35', sequence(der(0x82, integer(5))))),
    'critical key id': withExtension(extension('2.5.29.14', der(4, keyId(key)), true)),
    'critical authority id': withExtension(extension('2.5.29.35', sequence(), true)),
    access: withExtension(
      extension(
        '1.3.6.1.5.5.7.1.1',
        sequence(
          sequence(oid('1.3.6.1.5.5.7.48.1'), general.uri('http://ocsp.example')),
          sequence(oid('1.3.6.1.5.5.7.48.2'), general.uri('http://ca.example/\xff\xfe'.slice(0, 18))),
          sequence(oid('1.3.6.1.5.5.7.48.2'), der(0x86, Buffer.from('68c328ff', 'hex'))),
          sequence(oid('1.3.6.1.5.5.7.48.2'), general.dns('x')),
          sequence(oid('1.2.3'), general.uri('x')),
        ),
      ),
    ),
    'critical access': withExtension(extension('1.3.6.1.5.5.7.1.1', sequence(), true)),
    crl: withExtension(
      extension(
        '2.5.29.31',
        sequence(
          sequence(
            der(
              0xa0,
              der(
                0xa0,
                general.uri('http://crl/1'),
                general.uri('http://crl/2'),
                general.dns('x'),
                general.uri('http://crl/3'),
              ),
            ),
          ),
          sequence(der(0xa2, general.directory(cn('x')))),
          sequence(der(0xa0, der(0xa0, general.uri('http://crl/4')))),
        ),
      ),
    ),
    'crl by relative name': withExtension(extension('2.5.29.31', sequence(sequence(der(0xa0, der(0xa1)))))),
    policies: withExtension(
      extension(
        '2.5.29.32',
        sequence(
          sequence(oid('2.5.29.32.0')),
          sequence(
            oid('2.23.140.1.2.1'),
            sequence(sequence(oid('1.3.6.1.5.5.7.2.1'), der(0x16, Buffer.from('http://cps')))),
          ),
          sequence(oid(`1.2.${2n ** 31n}`)),
          sequence(oid(`2.25.${2n ** 127n - 1n}`)),
        ),
      ),
      extension('2.5.29.33', sequence(sequence(oid('1.2.3'), oid('1.2.4')))),
      extension('2.5.29.36', sequence(der(0x80, Buffer.of(0)), der(0x81, Buffer.of(3)))),
      extension('2.5.29.54', integer(2)),
    ),
    'no policies': withExtension(extension('2.5.29.32', sequence())),
    'policy twice': withExtension(
      extension('2.5.29.32', sequence(sequence(oid('1.2.3')), sequence(oid('1.2.3')))),
    ),
    'name constraints': withExtension(
      nameConstraints(
        [
          general.dns('example.org'),
          general.dns('.dot.example'),
          general.dns(''),
          general.address(10, 0, 0, 0, 255, 0, 0, 0),
          general.uri('.example.org'),
        ],
        [
          general.email('a@b.example'),
          general.email('.c.example'),
          general.address(...Buffer.alloc(16, 0x20), ...Buffer.alloc(16, 0xff)),
        ],
      ),
    ),
    'name constraints on directories': withExtension(nameConstraints([general.directory(cn('x'))], [])),
    'name constraint with odd mask': withExtension(
      nameConstraints([general.address(10, 0, 0, 0, 255, 0, 255, 0)], []),
    ),
    'name constraint of URI address': withExtension(nameConstraints([], [general.uri('10.0.0.1')])),
    'name constraint with no mailbox': withExtension(nameConstraints([], [general.email('a@@b')])),
    'no name constraints': withExtension(nameConstraints([], [])),
    'unknown critical': withExtension(
      extension('1.2.3.4', Buffer.of(1), true),
      extension('1.2.3.5', Buffer.of()),
    ),
    'extension twice': withExtension(extension('1.2.3.4', Buffer.of(1)), extension('1.2.3.4', Buffer.of(2))),
    'extension with large arc': withExtension(extension(`1.2.${2n ** 31n}`, Buffer.of(1))),
    'extension with largest arc': withExtension(extension(`1.2.${2n ** 31n - 1n}`, Buffer.of(1))),
    'version 1': text({ key, version: 1 }),
    'version 2': text({ key, version: 2 }),
    'extensions of version 1': text({ key, version: 1, extensions: [svidNames] }),
    names: withName(
      name(
        ['2.5.4.6', 'DE', 0x13],
        ['2.5.4.10', 'One'],
        ['2.5.4.10', 'Two'],
        ['2.5.4.11', 'U'],
        ['2.5.4.7', 'L'],
        ['2.5.4.8', 'P'],
        ['2.5.4.9', 'S'],
        ['2.5.4.17', '12'],
        ['2.5.4.5', '7', 0x13],
        ['2.5.4.3', 'a'],
        ['2.5.4.3', 'b'],
        ['0.9.2342.19200300.100.1.25', 'dc', 0x16],
      ),
    ),
    'no name': withName(name()),
    'latin name': withName(name(['2.5.4.3', Buffer.from('é', 'latin1'), 0x14])),
    'bmp name': withName(
      name(['2.5.4.3', Buffer.from('\0a\u2603\0\0'.slice(0, 0) + 'a\u2603\0', 'utf16le').swap16(), 0x1e]),
    ),
    'bmp surrogate': withName(name(['2.5.4.3', Buffer.from('d83d', 'hex'), 0x1e])),
    'odd bmp': withName(name(['2.5.4.3', Buffer.from('006100', 'hex'), 0x1e])),
    'numeric name': withName(name(['2.5.4.3', '12 3', 0x12])),
    'printable with an underscore': withName(name(['2.5.4.3', 'a_b', 0x13])),
    'printable with a star': withName(name(['2.5.4.3', '*.a&b', 0x13])),
    'broken UTF-8': withName(name(['2.5.4.3', Buffer.of(0xc3, 0x28)])),
    'name of a number': withName(name(['2.5.4.3', Buffer.of(1), 2])),
    'universal string': withName(name(['2.5.4.3', Buffer.of(0, 0, 0, 97), 0x1c])),
    'long serial': text({ key, serial: integer(2n ** 159n + 1n) }),
    'zero serial': text({ key, serial: integer(0) }),
    'negative serial': text({ key, serial: der(2, Buffer.of(0x80)) }),
    'padded serial': text({ key, serial: der(2, Buffer.of(0, 1)) }),
    'times of 1950 and 2049': withTimes(utcTime('500101000000Z'), utcTime('491231235959Z')),
    'times of year 0 and 9999': withTimes(
      generalizedTime('00000101000000Z'),
      generalizedTime('99991231235959Z'),
    ),
    'time that is none': withTimes(utcTime('240230000000Z'), utcTime('491231235959Z')),
    'time with a fraction': withTimes(generalizedTime('20240101000000.5Z'), utcTime('491231235959Z')),
  };
  const random = seeded(7);
  const rich = certificate({
    key,
    subject: name(['2.5.4.6', 'DE', 0x13], ['2.5.4.3', 'leaf']),
    extensions: [
      alternativeNames([
        general.uri('spiffe://example.org/a'),
        general.dns('a.example'),
        general.address(1, 2, 3, 4),
      ]),
      basicConstraints(true, 1),
      keyUsage(0x86, 1),
      extendedKeyUsage(serverAuth),
      nameConstraints([general.dns('example')], []),
      extension('2.5.29.32', sequence(sequence(oid('1.2.3')))),
    ],
  });
  for (let round = 0; round < 600; round++) {
    const changed = Buffer.from(rich);
    // The times are left alone: other forms of them are a difference that is documented.
    const at = Math.floor(random() * changed.length);
    changed[at] = pick(random, [0, 1, 0x7f, 0x80, 0xff, Math.floor(random() * 256)]);
    const times = rich.indexOf('240101000000Z') - 4;
    if (at < times || at > times + 32) cases[`changed ${round} at ${at}`] = changed.toString('base64');
  }
  return cases;
}

type Authority = Readonly<{ key: SigningKey; subject: Buffer }>;
type ChainCase = Readonly<{ text: string; options: Record<string, unknown> }>;

const rootOf: Authority = { key: keys.p384, subject: cn('root') };
const middleOf: Authority = { key: keys.rsa, subject: cn('middle') };

const authority = (
  { key, subject }: Authority,
  issuer: Authority,
  ...extensions: readonly Buffer[]
): Buffer =>
  certificate({
    key,
    subject,
    issuer,
    extensions: [basicConstraints(true), keyUsage(0x06, 1), ...extensions],
  });

const chain = (...certificates: readonly Buffer[]): string =>
  certificates.map((one) => pem('CERTIFICATE', one)).join('');

export function chainCases(): Record<string, ChainCase> {
  const root = authority(rootOf, rootOf);
  const middle = authority(middleOf, rootOf);
  const leafOf = (issuer: Authority, template: Partial<Template> = {}): Buffer =>
    certificate({ key: keys.p256, issuer, extensions: [svidNames], ...template });
  const leaf = leafOf(middleOf);
  const mapping = (policy: string) =>
    chain(
      root,
      authority(
        middleOf,
        rootOf,
        extension('2.5.29.32', sequence(sequence(oid('1.2.3')))),
        extension('2.5.29.33', sequence(sequence(oid(policy), oid('1.2.4')))),
      ),
      leaf,
    );
  const now = Date.UTC(2026, 0, 1) * 1e6;
  const withOptions = (certificates: string, options: Record<string, unknown> = {}): ChainCase => ({
    text: certificates,
    options,
  });
  const whole = chain(root, middle, leaf);
  const named = chain(
    root,
    leafOf(rootOf, {
      extensions: [
        alternativeNames([
          general.dns('a.example'),
          general.dns('*.w.example'),
          general.dns('x_y.example'),
          general.address(10, 0, 0, 1),
          general.address(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 2),
        ]),
      ],
    }),
  );
  const hosts = [
    'a.example',
    'A.Example.',
    'b.example',
    'q.w.example',
    'q.q.w.example',
    '*.w.example',
    'x_y.example',
    '10.0.0.1',
    '[10.0.0.1]',
    '10.0.0.2',
    '::ffff:10.0.0.1',
    '10.0.0.3',
    '"a.example"',
    '.',
    'a.example..',
  ];
  const cases: Record<string, ChainCase> = {
    whole: withOptions(whole),
    'root and leaf': withOptions(chain(root, leafOf(rootOf))),
    'leaf alone': withOptions(chain(leaf)),
    nothing: withOptions(''),
    'twice the root': withOptions(chain(root, root)),
    'wrong order': withOptions(chain(leaf, middle, root)),
    'middle missing': withOptions(chain(root, leaf)),
    'middles in another order': withOptions(
      chain(
        root,
        authority({ key: keys.ed, subject: cn('third') }, middleOf),
        middle,
        leafOf({ key: keys.ed, subject: cn('third') }),
      ),
    ),
    'unused middle': withOptions(
      chain(root, authority({ key: keys.ed, subject: cn('third') }, middleOf), middle, leaf),
    ),
    base64: withOptions(Buffer.concat([root, middle, leaf]).toString('base64')),
    'no certificates': withOptions('hello'),
    'other block': withOptions(whole + pem('PRIVATE KEY', Buffer.of(1))),
    'expired leaf': withOptions(chain(root, leafOf(rootOf, { notAfter: utcTime('250101000000Z') }))),
    'leaf of the future': withOptions(chain(root, leafOf(rootOf, { notBefore: utcTime('480101000000Z') }))),
    'expired leaf in its time': withOptions(
      chain(root, leafOf(rootOf, { notAfter: utcTime('250101000000Z') })),
      { CurrentTime: Date.UTC(2024, 5) * 1e6 },
    ),
    'last moment': withOptions(whole, { CurrentTime: Date.UTC(2049, 0) * 1e6 }),
    'after the last moment': withOptions(whole, { CurrentTime: Date.UTC(2049, 0) * 1e6 + 1024 }),
    'time zero': withOptions(whole, { CurrentTime: 0 }),
    'expired root': withOptions(
      chain(
        certificate({ ...rootOf, notAfter: utcTime('250101000000Z'), extensions: [basicConstraints(true)] }),
        leafOf(rootOf),
      ),
    ),
    'signed by another': withOptions(chain(root, leafOf({ key: keys.ed, subject: cn('root') }))),
    'root of no CA': withOptions(
      chain(certificate({ ...rootOf, extensions: [basicConstraints(false)] }), leafOf(rootOf)),
    ),
    'root without constraints': withOptions(chain(certificate({ ...rootOf }), leafOf(rootOf))),
    'root of version 1': withOptions(chain(certificate({ ...rootOf, version: 1 }), leafOf(rootOf))),
    'middle of version 1': withOptions(
      chain(root, certificate({ ...middleOf, issuer: rootOf, version: 1 }), leaf),
    ),
    'root that may not sign': withOptions(
      chain(
        certificate({ ...rootOf, extensions: [basicConstraints(true), keyUsage(0x80, 7)] }),
        leafOf(rootOf),
      ),
    ),
    'root with a path of 0': withOptions(
      chain(certificate({ ...rootOf, extensions: [basicConstraints(true, 0)] }), leafOf(rootOf)),
    ),
    'root with a path of 0 and a middle': withOptions(
      chain(certificate({ ...rootOf, extensions: [basicConstraints(true, 0)] }), middle, leaf),
    ),
    'middle with a path of 0': withOptions(
      chain(
        root,
        certificate({ ...middleOf, issuer: rootOf, extensions: [basicConstraints(true, 0)] }),
        leaf,
      ),
    ),
    'leaf that is an authority': withOptions(
      chain(root, authority({ key: keys.p256, subject: cn('leaf') }, rootOf)),
    ),
    'leaf with a critical unknown': withOptions(
      chain(root, leafOf(rootOf, { extensions: [extension('1.2.3', Buffer.of(), true)] })),
    ),
    'middle with a critical unknown': withOptions(
      chain(root, authority(middleOf, rootOf, extension('1.2.3', Buffer.of(), true)), leaf),
    ),
    sha1: withOptions(
      chain(
        root,
        authority({ key: keys.rsaSha1, subject: cn('old') }, rootOf),
        leafOf({ key: keys.rsaSha1, subject: cn('old') }),
      ),
    ),
    'ec sha1': withOptions(
      chain(
        certificate({ key: keys.ecSha1, subject: cn('old'), extensions: [basicConstraints(true)] }),
        leafOf({ key: keys.ecSha1, subject: cn('old') }),
      ),
    ),
    md5: withOptions(
      chain(
        certificate({ key: keys.rsaMd5, subject: cn('old'), extensions: [basicConstraints(true)] }),
        leafOf({ key: keys.rsaMd5, subject: cn('old') }),
      ),
    ),
    ...Object.fromEntries(
      Object.entries({ ...keys, pss: pssKey(keys.rsa), pss20: pssKey(keys.rsa, 20) }).map(([kind, key]) => {
        const signer = { key, subject: cn(kind) };
        return [`signed by ${kind}`, withOptions(chain(authority(signer, signer), leafOf(signer)))];
      }),
    ),
    'usage of the server': withOptions(
      chain(root, leafOf(rootOf, { extensions: [extendedKeyUsage(serverAuth)] })),
    ),
    'usage of the client': withOptions(
      chain(root, leafOf(rootOf, { extensions: [extendedKeyUsage(clientAuth)] })),
    ),
    'usage of the client asked for': withOptions(
      chain(root, leafOf(rootOf, { extensions: [extendedKeyUsage(clientAuth)] })),
      { KeyUsages: ['KeyUsageClientAuth'] },
    ),
    'any usage asked for': withOptions(
      chain(root, leafOf(rootOf, { extensions: [extendedKeyUsage(clientAuth)] })),
      { KeyUsages: ['KeyUsageAny'] },
    ),
    'any usage in the leaf': withOptions(
      chain(root, leafOf(rootOf, { extensions: [extendedKeyUsage('2.5.29.37.0')] })),
      { KeyUsages: ['KeyUsageCodeSigning'] },
    ),
    'unknown usage in the leaf': withOptions(
      chain(root, leafOf(rootOf, { extensions: [extendedKeyUsage('1.2.3')] })),
    ),
    'usages that do not nest': withOptions(
      chain(
        root,
        authority(middleOf, rootOf, extendedKeyUsage(clientAuth)),
        leafOf(middleOf, { extensions: [extendedKeyUsage(serverAuth)] }),
      ),
    ),
    'usages that nest in part': withOptions(
      chain(
        root,
        authority(middleOf, rootOf, extendedKeyUsage(clientAuth)),
        leafOf(middleOf, { extensions: [extendedKeyUsage(serverAuth, clientAuth)] }),
      ),
      { KeyUsages: ['KeyUsageServerAuth', 'KeyUsageClientAuth'] },
    ),
    'usages crosswise': withOptions(
      chain(
        root,
        authority(middleOf, rootOf, extendedKeyUsage(clientAuth)),
        leafOf(middleOf, { extensions: [extendedKeyUsage(serverAuth)] }),
      ),
      { KeyUsages: ['KeyUsageServerAuth', 'KeyUsageClientAuth'] },
    ),
    'no usages asked for': withOptions(whole, { KeyUsages: [] }),
    'unknown usage asked for': withOptions(whole, { KeyUsages: ['KeyUsageMagic'] }),
    'usages of another type': withOptions(whole, { KeyUsages: 'KeyUsageAny' }),
    'numbers among usages': withOptions(whole, { KeyUsages: [1, 'KeyUsageServerAuth'] }),
    'unknown option': withOptions(whole, { Name: 1 }),
    'unknown option of nothing': withOptions('hello', { Name: 1 }),
    'host of another type': withOptions(whole, { DNSName: 1 }),
    'time of another type': withOptions(whole, { CurrentTime: 'now' }),
    'time with a fraction': withOptions(whole, { CurrentTime: 1.5 }),
    comparisons: withOptions(whole, { MaxConstraintComparisons: 5, CurrentTime: now }),
    'comparisons of another type': withOptions(whole, { MaxConstraintComparisons: 'a' }),
    ...Object.fromEntries(hosts.map((host) => [`host ${host}`, withOptions(named, { DNSName: host })])),
    policies: withOptions(mapping('1.2.3')),
    'invalid policy mapping': withOptions(mapping('2.5.29.32.0')),
    'explicit policy that is lacking': withOptions(
      chain(
        root,
        authority(middleOf, rootOf, extension('2.5.29.36', sequence(der(0x80, Buffer.of(0))))),
        leaf,
      ),
    ),
    'key identifiers': withOptions(
      chain(
        root,
        authority(
          { key: keys.rsa, subject: cn('middle') },
          rootOf,
          extension('2.5.29.14', der(4, Buffer.of(1))),
        ),
        authority(
          { key: keys.rsa, subject: cn('middle') },
          rootOf,
          extension('2.5.29.14', der(4, Buffer.of(2))),
        ),
        middle,
        leafOf(middleOf, { extensions: [extension('2.5.29.35', sequence(der(0x80, Buffer.of(2))))] }),
      ),
    ),
    'cross-signed in a circle': withOptions(
      chain(
        root,
        authority({ key: keys.ed, subject: cn('b') }, middleOf),
        authority(middleOf, { key: keys.ed, subject: cn('b') }),
        leaf,
      ),
    ),
    'two ways': withOptions(
      chain(
        root,
        authority(middleOf, { key: keys.ed, subject: cn('b') }),
        authority({ key: keys.ed, subject: cn('b') }, rootOf),
        middle,
        leaf,
      ),
    ),
    'too many attempts': withOptions(
      chain(
        root,
        ...Array.from({ length: 101 }, (_, serial) =>
          certificate({
            key: keys.other256,
            subject: cn('middle'),
            issuer: rootOf,
            serial: integer(serial),
            extensions: [basicConstraints(true)],
          }),
        ),
        middle,
        leaf,
      ),
    ),
  };
  return { ...cases, ...constraintCases() };
}

function constraintCases(): Record<string, ChainCase> {
  const random = seeded(11);
  const some = <T>(list: readonly T[], most: number): readonly T[] =>
    Array.from({ length: Math.floor(random() * (most + 1)) }, () => pick(random, list));
  const bases = [
    ...[
      'example',
      'a.example',
      '.example',
      '.a.example',
      'a-a.example',
      'b.a.example',
      'A.Example',
      '',
      'w.example',
      'other',
    ].map(general.dns),
    ...['example', '.example', 'a.example', 'u@a.example', 'U@A.example', '"q u"@a.example', ''].map(
      general.email,
    ),
    ...['example', '.example', 'a.example', 'b.a.example', ''].map(general.uri),
    general.address(10, 0, 0, 0, 255, 0, 0, 0),
    general.address(10, 1, 0, 0, 255, 255, 0, 0),
    general.address(0, 0, 0, 0, 0, 0, 0, 0),
    general.address(
      ...Buffer.from('20010db8000000000000000000000000', 'hex'),
      ...Buffer.from('ffffffff000000000000000000000000', 'hex'),
    ),
  ];
  const subjects = [
    ...[
      'example',
      'a.example',
      'b.a.example',
      'a-a.example',
      '*.example',
      '*.a.example',
      'B.A.EXAMPLE',
      'xexample',
      'a.w.example',
      '*.w.example',
      'other',
      'c.other',
    ].map(general.dns),
    ...[
      'u@a.example',
      'U@a.example',
      'u@A.EXAMPLE',
      'u@example',
      'q\\ u@a.example',
      '"q u"@a.example',
      'no mailbox',
      'u@b.a.example',
    ].map(general.email),
    ...[
      'spiffe://a.example/x',
      'spiffe://example',
      'https://A.Example:8443/',
      'https://10.0.0.1/',
      'https://[2001:db8::1]/',
      'urn:x',
      'spiffe://b.a.example/y',
    ].map(general.uri),
    general.address(10, 1, 2, 3),
    general.address(10, 2, 2, 3),
    general.address(11, 0, 0, 1),
    general.address(...Buffer.from('20010db8000000000000000000000001', 'hex')),
    general.address(...Buffer.from('00000000000000000000ffff0a010203', 'hex')),
  ];
  const cases: Record<string, ChainCase> = {};
  for (let round = 0; round < 400; round++) {
    const [permitted, excluded] = [some(bases, 4), some(bases, 3)];
    const few = permitted.length + excluded.length === 0 ? [general.dns('example')] : permitted;
    const root = authority(rootOf, rootOf, ...(random() < 0.3 ? [nameConstraints(few, excluded)] : []));
    const middle = authority(
      middleOf,
      rootOf,
      nameConstraints(some(bases, 2), [...excluded, general.dns('never')]),
      ...(random() < 0.3 ? [alternativeNames([pick(random, subjects)])] : []),
    );
    const names = [pick(random, subjects), ...some(subjects, 1)];
    const leaf = certificate({ key: keys.p256, issuer: middleOf, extensions: [alternativeNames(names)] });
    cases[`constraints ${round}`] = { text: chain(root, middle, leaf), options: {} };
  }
  return cases;
}

export function requestCases(): Record<string, string> {
  const subject = name(['2.5.4.6', 'DE', 0x13], ['2.5.4.3', 'asks']);
  const wanted = (...extensions: readonly Buffer[]): Buffer =>
    sequence(oid('1.2.840.113549.1.9.14'), der(0x31, sequence(...extensions)));
  const request = (...attributes: readonly Buffer[]): Buffer =>
    certificateRequest(keys.p256, subject, attributes);
  const rich = request(wanted(svidNames, basicConstraints(true, 1), keyUsage(0x80, 7)));
  return {
    plain: pem('CERTIFICATE REQUEST', request()),
    rsa: pem('CERTIFICATE REQUEST', certificateRequest(keys.rsa, subject, [])),
    ed25519: pem('CERTIFICATE REQUEST', certificateRequest(keys.ed, subject, [])),
    rich: pem('CERTIFICATE REQUEST', rich),
    base64: rich.toString('base64'),
    'base64 of PEM': Buffer.from(pem('CERTIFICATE REQUEST', rich)).toString('base64'),
    'old label': pem('NEW CERTIFICATE REQUEST', rich),
    certificate: pem('CERTIFICATE', certificate({ key: keys.p256 })),
    'base64 of a certificate': Buffer.from(pem('CERTIFICATE', certificate({ key: keys.p256 }))).toString(
      'base64',
    ),
    nothing: '',
    'more behind': Buffer.concat([rich, Buffer.of(5, 0)]).toString('base64'),
    'challenge password': pem(
      'CERTIFICATE REQUEST',
      request(
        sequence(oid('1.2.840.113549.1.9.7'), der(0x31, der(0x0c, Buffer.from('secret')))),
        wanted(svidNames),
      ),
    ),
    'odd values': pem(
      'CERTIFICATE REQUEST',
      request(
        sequence(
          oid('1.2.3.4'),
          der(
            0x31,
            sequence(
              sequence(oid('1.2.3'), integer(5)),
              sequence(oid('1.2.3'), der(0x0c, Buffer.from('é'))),
              sequence(oid('1.2.3'), oid('1.2.3')),
              sequence(oid('1.2.3'), bits(Buffer.of(0x80), 7)),
              sequence(oid('1.2.3'), utcTime('240101000000Z')),
              sequence(oid('1.2.3'), der(5)),
            ),
          ),
        ),
      ),
    ),
    'extension twice': pem('CERTIFICATE REQUEST', request(wanted(svidNames, svidNames))),
    'asked twice': pem('CERTIFICATE REQUEST', request(wanted(svidNames), wanted(keyUsage(0x80, 7)))),
  };
}

const pkcs8 = ({ privateKey }: SigningKey): string =>
  privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
const sec1 = ({ privateKey }: SigningKey): string =>
  privateKey.export({ type: 'sec1', format: 'pem' }) as string;
const pkcs1 = ({ privateKey }: SigningKey): string =>
  privateKey.export({ type: 'pkcs1', format: 'pem' }) as string;

export function privateKeyCases(): Record<string, string> {
  const broken = Buffer.from(keys.rsa.privateKey.export({ type: 'pkcs1', format: 'der' }));
  broken[broken.length - 3] = (broken[broken.length - 3] ?? 0) ^ 1;
  return {
    nothing: '',
    rsa: pkcs8(keys.rsa),
    'rsa pkcs1': pkcs1(keys.rsa),
    p256: pkcs8(keys.p256),
    'p256 sec1': sec1(keys.p256),
    'p384 sec1': sec1(keys.p384),
    p521: pkcs8(keys.p521),
    k1: pkcs8(keys.k1),
    ed25519: pkcs8(keys.ed),
    several: pkcs8(keys.rsa) + sec1(keys.p256) + pem('CERTIFICATE', Buffer.of(1)) + pkcs8(keys.ed),
    base64: Buffer.from(pkcs8(keys.p256)).toString('base64'),
    'base64 of DER': keys.p256.privateKey.export({ type: 'pkcs8', format: 'der' }).toString('base64'),
    certificate: pem('CERTIFICATE', certificate({ key: keys.p256 })),
    'broken rsa': pem('RSA PRIVATE KEY', broken),
    'wrong label': pem('EC PRIVATE KEY', keys.p256.privateKey.export({ type: 'pkcs8', format: 'der' })),
    'no key': 'hello world',
    'public key': keys.rsa.publicKey.export({ type: 'spki', format: 'pem' }) as string,
  };
}

export function keyPairCases(): Record<string, readonly [string, string]> {
  const of = (key: SigningKey): string => pem('CERTIFICATE', certificate({ key, extensions: [svidNames] }));
  return {
    rsa: [of(keys.rsa), pkcs8(keys.rsa)],
    'rsa pkcs1': [of(keys.rsa), pkcs1(keys.rsa)],
    p256: [of(keys.p256), sec1(keys.p256)],
    'p256 pkcs8': [of(keys.p256), pkcs8(keys.p256)],
    ed25519: [of(keys.ed), pkcs8(keys.ed)],
    chain: [of(keys.p256) + of(keys.rsa), pkcs8(keys.p256)],
    base64: [Buffer.from(of(keys.p256)).toString('base64'), Buffer.from(pkcs8(keys.p256)).toString('base64')],
    'base64 of DER': [
      certificate({ key: keys.p256 }).toString('base64'),
      keys.p256.privateKey.export({ type: 'pkcs8', format: 'der' }).toString('base64'),
    ],
    'another key': [of(keys.p256), pkcs8(keys.other256)],
    'another kind': [of(keys.p256), pkcs8(keys.rsa)],
    exchanged: [pkcs8(keys.p256), of(keys.p256)],
    'no key': [of(keys.p256), of(keys.p256)],
    'key among certificates': [of(keys.p256) + pkcs8(keys.p256), of(keys.p256) + pkcs8(keys.p256)],
  };
}

export function uriCases(): readonly string[] {
  const random = seeded(3);
  const pieces = [
    'http',
    'spiffe',
    ':',
    '//',
    '/',
    '/',
    '?',
    '#',
    '@',
    '[',
    ']',
    '::1',
    '10.0.0.1',
    'a.example',
    'A',
    '%2f',
    '%41',
    '%',
    '%zz',
    '%25',
    'en0',
    ' ',
    '"',
    '<',
    'ü',
    ';',
    ',',
    '&',
    '=',
    '+',
    '*',
    '!',
    '8080',
    '.',
    '..',
    '~',
    '_',
    '\\',
    '|',
    "'",
    '(',
    '^',
    '`',
    '{',
    '%ff',
    '%C3%BC',
    '\u007f',
    '\t',
  ];
  const made = Array.from({ length: 3000 }, () =>
    Array.from({ length: 1 + Math.floor(random() * 8) }, () => pick(random, pieces)).join(''),
  );
  return [
    ...new Set([
      '',
      '*',
      '/',
      '//',
      '///',
      '///a',
      '//a',
      'a',
      'a:b',
      './a:b',
      ':a',
      'a/b:c',
      'http:',
      'http:a',
      'http:/a',
      'http:///a',
      'HTTP://A/%41',
      'http://a:b@c:8/d%2fe?x=y#f',
      'http://a@b@c/',
      'http://a:@b',
      'http://:80',
      'http://a:',
      'http://a:8x',
      'http://a:1:2',
      'pg://a:1,b:2/x',
      'http://[::1]:80/',
      'http://[::1%25en0]/',
      'http://[::1%en0]/',
      'http://[fe80::1%25]/',
      'http://[1.2.3.4]/',
      'http://[::ffff:1.2.3.4]/',
      'http://[::1]a',
      'http://a%20b/',
      'http://a%c3%bc/',
      'http://ü/',
      'http://a b/',
      'http://a/ b',
      'http://a/?',
      'http://a/??',
      'http://a?b?c',
      'mailto:a@b?c=d',
      'http://a/#',
      'http://a/#%zz',
      'http://a/#a#b',
      'http://a/%zz',
      'http://a\u0000b',
      '1http://a',
      'h-t+t.p://a',
      'hüttp://a',
      'http://a/%E2%98%83',
      'http://a/☃',
      'http://a/a;b,c',
      'http://a/a[b]',
      ...made,
    ]),
  ];
}
