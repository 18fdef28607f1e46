import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { AppError, MalformedError } from '../../../src/runtime/errors.ts';
import { fillIdTemplate, formatIdTemplate, parseIdTemplate } from '../../../src/spiffe/id-template.ts';
import { parseSpiffeId } from '../../../src/spiffe/spiffe-id.ts';

describe('an ID template', () => {
  it('puts a subject into the place of {sub}', () => {
    const template = parseIdTemplate('spiffe://agentvault.com/agent/{sub}');
    assert.equal(fillIdTemplate(template, 'agent123'), 'spiffe://agentvault.com/agent/agent123');
    const inside = parseIdTemplate('spiffe://agentvault.com/agent/{sub}/session');
    assert.equal(fillIdTemplate(inside, 'a.b-c_D'), 'spiffe://agentvault.com/agent/a.b-c_D/session');
  });

  for (const subject of [
    '',
    '.',
    '..',
    'a/b',
    '../x',
    'a b',
    'ü',
    'a%2fb',
    'a@b.example',
    '{sub}',
    'x'.repeat(3000),
  ]) {
    it(`makes no ID of the subject ${JSON.stringify(subject.slice(0, 20))}`, () => {
      assert.equal(
        fillIdTemplate(parseIdTemplate('spiffe://agentvault.com/agent/{sub}'), subject),
        undefined,
      );
    });
  }

  for (const text of [
    '',
    'spiffe://agentvault.com/agent',
    'spiffe://agentvault.com/{sub}/{sub}',
    'spiffe://agentvault.com/agent-{sub}',
    'spiffe://agentvault.com/{sub}x',
    'spiffe://{sub}/agent',
    'spiffe://{sub}.example/agent',
    'spiffe://agentvault.com{sub}',
    'spiffe:///{sub}',
    'spiffe://AgentVault.com/{sub}',
    'https://agentvault.com/{sub}',
    'spiffe://agentvault.com/../{sub}',
    'spiffe://agentvault.com/{sub}/',
  ]) {
    it(`is refused as ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseIdTemplate(text), MalformedError);
    });
  }

  it('reads back as it is written, and only ever fills to a valid ID one segment longer', () => {
    const pieces = fc.constantFrom('spiffe://', 'td.example', '/', 'agent', '{sub}', '..', '%', 'A');
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 8 }), fc.string(), (parts, subject) => {
        const text = parts.join('');
        try {
          const template = parseIdTemplate(text);
          assert.equal(formatIdTemplate(template), text);
          const id = fillIdTemplate(template, subject);
          if (id === undefined) return;
          assert.equal(parseSpiffeId(id), id);
          assert.equal(id.split('/').length, text.split('/').length);
        } catch (error) {
          assert.ok(error instanceof AppError);
        }
      }),
    );
  });
});
