import assert from 'node:assert/strict';
import process from 'node:process';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { deflateSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { createDeframer, type Frame, frameOf, unpack } from '../../../src/grpc/framing.ts';
import { Status, StatusError } from '../../../src/grpc/status.ts';

const failsWith = (code: number) => (error: unknown) => error instanceof StatusError && error.status === code;

/** `bytes` in pieces of the given sizes, over and over. */
function pieces(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const cut: Buffer[] = [];
  for (let at = 0, n = 0; at < bytes.length; n++) {
    const size = sizes[n % sizes.length] ?? 1;
    cut.push(bytes.subarray(at, at + size));
    at += size;
  }
  return cut;
}

describe('a deframer', () => {
  it('gives the same messages however their bytes are cut', () => {
    const messages = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 });
    const sizes = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(messages, sizes, (all, cut) => {
        const deframer = createDeframer(300);
        const bytes = Buffer.concat(all.map((message) => frameOf(Buffer.from(message))));
        const got = pieces(bytes, cut).flatMap((piece) => deframer.push(piece));
        assert.deepEqual(
          got,
          all.map((message): Frame => ({ compressed: false, bytes: Buffer.from(message) })),
        );
        deframer.end();
      }),
    );
  });

  it('keeps of a message that comes byte by byte no more than its bytes', async () => {
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc') as () => void;
    const message = Buffer.alloc(20_000, 'x');
    const deframer = createDeframer(message.length);
    const frames: Frame[] = [];
    gc();
    const before = process.memoryUsage().arrayBuffers;
    for (const [index, byte] of frameOf(message).entries()) {
      // As a read from a socket of which the byte is a part.
      frames.push(...deframer.push(Buffer.allocUnsafeSlow(8_192).fill(byte).subarray(0, 1)));
      if (index !== message.length) continue;
      // V8 gives array buffers back some time after it has found that nobody has them.
      let kept = Number.POSITIVE_INFINITY;
      for (let tries = 0; kept >= 20_000_000 && tries < 200; tries++) {
        gc();
        await sleep(10);
        kept = process.memoryUsage().arrayBuffers - before;
      }
      assert.ok(kept < 20_000_000, `${kept} bytes are kept of ${message.length}`);
    }
    assert.deepEqual(frames, [{ compressed: false, bytes: message }]);
  });

  it('never throws anything but a StatusError, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 50 })), (chunks) => {
        const deframer = createDeframer(20);
        try {
          for (const chunk of chunks) deframer.push(Buffer.from(chunk));
          deframer.end();
        } catch (error) {
          assert.ok(error instanceof StatusError);
        }
      }),
    );
  });

  it('refuses a message that says it is too long before any of it has come', () => {
    const deframer = createDeframer(1000);
    assert.deepEqual(deframer.push(Buffer.from([0, 0, 0, 0x03, 0xe8])), []);
    const other = createDeframer(1000);
    assert.throws(() => other.push(Buffer.from([0, 0, 0, 0x03, 0xe9])), failsWith(Status.RESOURCE_EXHAUSTED));
  });

  it('refuses flags it does not know, and an end inside a message', () => {
    assert.throws(() => createDeframer(10).push(Buffer.from([2, 0, 0, 0, 0])), failsWith(Status.INTERNAL));
    for (const bytes of [[0], [0, 0, 0, 0, 1]]) {
      const deframer = createDeframer(10);
      deframer.push(Buffer.from(bytes));
      assert.throws(() => deframer.end(), failsWith(Status.INTERNAL));
    }
  });
});

describe('unpacking a message', () => {
  it('undoes gzip and deflate up to the limit', async () => {
    const message = Buffer.alloc(1000, 'x');
    for (const [encoding, pack] of [
      ['gzip', gzipSync],
      ['deflate', deflateSync],
    ] as const) {
      assert.deepEqual(await unpack(pack(message), encoding, 1000), message);
      await assert.rejects(unpack(pack(message), encoding, 999), failsWith(Status.RESOURCE_EXHAUSTED));
      await assert.rejects(unpack(Buffer.from('nonsense'), encoding, 999), failsWith(Status.INTERNAL));
      assert.deepEqual(await unpack(pack(Buffer.alloc(0)), encoding, 0), Buffer.alloc(0));
    }
  });

  it('refuses other encodings, and a compressed message where none was announced', async () => {
    await assert.rejects(unpack(Buffer.alloc(1), 'br', 10), failsWith(Status.UNIMPLEMENTED));
    await assert.rejects(unpack(Buffer.alloc(1), 'identity', 10), failsWith(Status.INTERNAL));
  });
});
