import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseMultipart } from '../../../../src/extauthz/body/multipart.ts';
import { AppError, LimitError, MalformedError } from '../../../../src/runtime/errors.ts';

const type = 'multipart/form-data; boundary=xyz';

function read(lines: readonly string[], contentType = type): unknown {
  const parsed = parseMultipart(contentType, Buffer.from(lines.join('\r\n')));
  return parsed === undefined ? undefined : JSON.parse(JSON.stringify(parsed));
}

function part(headers: readonly string[], body: string): string[] {
  return ['--xyz', ...headers, '', body];
}

const named = (name: string) => `Content-Disposition: form-data; name="${name}"`;

test('parts come under their form names, in order', () => {
  assert.deepEqual(
    read([
      ...part([named('a')], '1'),
      ...part([named('b')], ''),
      ...part([named('a')], '2\r\n3'),
      '--xyz--',
      '',
    ]),
    { a: ['1', '2\r\n3'], b: [''] },
  );
});

test('white space around and behind parameters means nothing', () => {
  const lines = [...part([named('a')], '1'), '--xyz--'];
  for (const tail of [' ', ' ;', '; ', '\u00a0\u00a0']) {
    assert.deepEqual(read(lines, `multipart/form-data ; boundary = xyz${tail}`), { a: ['1'] });
  }
});

test('a JSON part is JSON, any other is text', () => {
  const json = ['Content-Type: application/json; charset=utf-8', named('j')];
  assert.deepEqual(read([...part(json, '{"x":[1]}'), ...part([named('t')], '{"x":[1]}'), '--xyz--']), {
    j: [{ x: [1] }],
    t: ['{"x":[1]}'],
  });
  assert.throws(() => read([...part(json, '{'), '--xyz--']), MalformedError);
});

test('parts without a form name are skipped', () => {
  assert.deepEqual(
    read([
      ...part([], 'x'),
      ...part(['Content-Disposition: attachment; name="a"'], 'x'),
      ...part([named('')], 'x'),
      ...part(['content-disposition:form-data;filename="f";name=bare'], 'y'),
      '--xyz--',
    ]),
    { bare: ['y'] },
  );
});

test('quoted boundaries, preamble, epilogue and blanks after a boundary are fine', () => {
  assert.deepEqual(
    read(
      ['preamble', '--x z \t', named('a"b').replace('a"b', 'a\\"b'), '', '1', '--x z--', 'epilogue'],
      'multipart/form-data; boundary="x z"',
    ),
    { 'a"b': ['1'] },
  );
});

test('without a boundary there is nothing to read', () => {
  assert.equal(parseMultipart('multipart/form-data', Buffer.from('x')), undefined);
  assert.equal(parseMultipart('multipart/form-data;', Buffer.from('x')), undefined);
});

test('what readers would understand in different ways is malformed', () => {
  const one = part([named('a')], '1');
  const bodies: string[][] = [
    [...one, '--xyz--x', ...part([named('b')], '2'), '--xyz--'],
    [...one, '--xyz--x'],
    [...part([`Content-Disposition: form-data; name*=UTF-8''%e2%82%ac`], '1'), '--xyz--'],
    [...part([`Content-Disposition: form-data; name*0=a; name*1=b`], '1'), '--xyz--'],
    [...part([named('a'), 'Content-Transfer-Encoding: quoted-printable'], '=31'), '--xyz--'],
    [...part([named('a'), 'content-transfer-encoding: BASE64'], 'MQ=='), '--xyz--'],
    [...part(['Content-Disposition: form-data; name=a=b'], '1'), '--xyz--'],
  ];
  for (const body of bodies) assert.throws(() => read(body), MalformedError, body.join('|'));
  for (const contentType of [
    "multipart/form-data; boundary*=utf-8''xyz",
    'multipart/form-data, multipart/form-data; boundary=xyz',
    'text/x-multipart/form-data; boundary=xyz',
    'multipart/form-data; boundary=x=yz',
  ]) {
    assert.throws(() => read([...one, '--xyz--'], contentType), MalformedError, contentType);
  }
});

test('a file name in the form of RFC 2231 and an encoding that changes nothing are fine', () => {
  const headers = [
    `Content-Disposition: form-data; name="a"; filename*=UTF-8''%e2%82%ac`,
    'Content-Transfer-Encoding: Binary',
  ];
  assert.deepEqual(read([...part(headers, '1'), '--xyz-- \t', 'epilogue']), { a: ['1'] });
});

test('a body that breaks off or has broken lines is malformed', () => {
  const bodies: string[][] = [
    ['nothing'],
    ['--xyz'],
    part([named('a')], '1'),
    [...part([named('a')], '1'), '--xyz'],
    ['--xyzz', named('a'), '', '1', '--xyz--'],
    ['--xyz', 'no colon', '', '1', '--xyz--'],
    ['--xyz', named('a'), '--xyz--'],
    ['--xyz', named('a'), named('b'), '', '1', '--xyz--'],
    ['--xyz', 'Content-Disposition: form-data; name="a"; name="b"', '', '1', '--xyz--'],
    ['--xyz', 'Content-Disposition: form-data; name="a', '', '1', '--xyz--'],
  ];
  for (const body of bodies) assert.throws(() => read(body), MalformedError, body.join('|'));
  for (const contentType of [
    'multipart/form-data; boundary=a; boundary=b',
    `multipart/form-data; boundary=${'x'.repeat(71)}`,
  ]) {
    assert.throws(() => read([...part([named('a')], '1'), '--xyz--'], contentType), MalformedError);
  }
});

test('the number of parts and the size of their headers are bounded', () => {
  const parts = Array.from({ length: 1_001 }, () => part([named('a')], '')).flat();
  assert.throws(() => read([...parts, '--xyz--']), LimitError);
  assert.throws(() => read([...part([`x: ${'y'.repeat(20_000)}`], ''), '--xyz--']), LimitError);
});

test('what FormData writes is read back', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(
          fc.string({ minLength: 1, unit: fc.constantFrom('a', 'é', '-', '_', '=') }),
          fc.string({ unit: 'grapheme' }),
        ),
      ),
      async (fields) => {
        const form = new FormData();
        for (const [name, value] of fields) form.append(name, value);
        const response = new Response(form);
        const body = Buffer.from(await response.arrayBuffer());
        const parsed = parseMultipart(response.headers.get('content-type') ?? '', body) ?? {};
        for (const [name] of fields) {
          // FormData normalizes line breaks of what it sends.
          assert.deepEqual(
            parsed[name],
            form
              .getAll(name)
              .map((value) => (typeof value === 'string' ? value : '').replace(/\r\n|\r|\n/g, '\r\n')),
          );
        }
      },
    ),
  );
});

test('any bytes parse or are refused with an AppError', () => {
  const text = fc.array(fc.constantFrom('--xyz', '--', '\r\n', ': ', 'a', named('b'), '"', ';'), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(text, fc.string(), (pieces, contentType) => {
      for (const header of [type, `multipart/form-data;${contentType}`]) {
        try {
          parseMultipart(header, Buffer.from(pieces.join('')));
        } catch (error) {
          assert.ok(error instanceof AppError);
        }
      }
    }),
  );
});
