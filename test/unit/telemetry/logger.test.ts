import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { Writable } from 'node:stream';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { MalformedError } from '../../../src/runtime/errors.ts';
import type { Logger } from '../../../src/runtime/log.ts';
import { createLogger, type LogLevel } from '../../../src/telemetry/logger.ts';
import { redactFields } from '../../../src/telemetry/redact.ts';

function captured(level: LogLevel = 'info'): { log: Logger; text: () => string } {
  let text = '';
  const destination = new Writable({
    write(chunk, _encoding, done) {
      text += String(chunk);
      done();
    },
  });
  return { log: createLogger({ level, destination }), text: () => text };
}

describe('logger', () => {
  it('writes one JSON object a line with time, level, fields and message', () => {
    const { log, text } = captured();
    log.info({ version: 3 }, 'secrets sent');
    log.warn({}, 'second');
    const [first, second] = text()
      .trim()
      .split('\n')
      .map((line): unknown => JSON.parse(line));
    const { time, ...rest } = first as { time: string };
    assert.match(time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.deepEqual(rest, { level: 'info', version: 3, message: 'secrets sent' });
    assert.equal((second as { level: string }).level, 'warn');
  });

  it('writes nothing below its level', () => {
    const { log, text } = captured('warn');
    log.debug({}, 'a');
    log.info({}, 'b');
    assert.equal(text(), '');
    log.error({}, 'c');
    assert.match(text(), /"level":"error"/);
  });

  it('writes neither keys nor tokens, wherever they hide', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const der = privateKey.export({ type: 'pkcs8', format: 'der' });
    const jwt = `eyJhbGciOiJFUzI1NiJ9.${'c2VjcmV0'.repeat(4)}.${'c2ln'.repeat(8)}`;
    const { log, text } = captured();
    const cause = new MalformedError(`bad key ${pem}`);
    log.error(
      {
        key: privateKey,
        der,
        headers: {
          Authorization: 'Basic abc123',
          'x-forwarded-client-cert': 'Hash=abc123',
          cookie: 'abc123',
        },
        nested: [{ deep: { privateKey: 'abc123', private_key: 'abc123' } }, new Map([['k', der]])],
        text: `got ${jwt} and ${pem}`,
        cut: pem.slice(0, 60),
        cause,
      },
      'failed',
    );
    const line = text();
    assert.equal(line.trim().split('\n').length, 1);
    for (const secret of [
      'abc123',
      pem.split('\n')[1] ?? '',
      jwt,
      'c2VjcmV0',
      der.toString('base64').slice(0, 20),
    ]) {
      assert.ok(!line.includes(secret), secret);
    }
    assert.ok(!line.includes([...der.subarray(0, 8)].join(',')));
    assert.match(line, /"code":"malformed"/);
  });

  it('writes of a foreign error only its name and message', () => {
    const error = Object.assign(new Error('refused'), {
      headers: { authorization: 'Bearer abc' },
      body: 'abc',
    });
    assert.deepEqual(redactFields({ error }), { error: { name: 'Error', message: 'refused' } });
  });

  it('always ends, and always with something that JSON can say', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.anything({ withBigInt: true, withDate: true, withMap: true })),
        (fields) => {
          JSON.stringify(redactFields(fields));
        },
      ),
    );
    const loop: Record<string, unknown> = {};
    loop['self'] = loop;
    JSON.stringify(redactFields(loop));
  });
});
