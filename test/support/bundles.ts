import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { readTar } from '../../src/policy/bundle/tar.ts';

const fixtures = join(import.meta.dirname, '../fixtures/policy');

/** A prebuilt bundle of test/fixtures/policy; test/e2e/opa-engine.test.ts rebuilds and compares it. */
export function fixtureBundle(name: 'lab' | 'clock'): Promise<Buffer> {
  return readFile(join(fixtures, `${name}.tar.gz`));
}

export function unpackBundle(bundle: Buffer): Map<string, Buffer> {
  return new Map(readTar(gunzipSync(bundle)).map(({ path, bytes }) => [path, bytes]));
}

/** The lab bundle with other data, or another manifest. */
export async function labBundle(changes: Readonly<Record<string, string | undefined>>): Promise<Buffer> {
  const files = unpackBundle(await fixtureBundle('lab'));
  for (const [path, text] of Object.entries(changes)) {
    if (text === undefined) files.delete(path);
    else files.set(path, Buffer.from(text));
  }
  return packBundle(files);
}

export function packBundle(files: ReadonlyMap<string, Buffer>): Buffer {
  return gzipSync(packTar([...files].map(([path, bytes]) => ({ path: `/${path}`, bytes }))));
}

/** A ustar archive; paths that do not fit a header go into a pax record. */
export function packTar(files: readonly Readonly<{ path: string; bytes: Buffer; type?: string }>[]): Buffer {
  const blocks = files.flatMap(({ path, bytes, type }) => {
    const entry = [header(path.slice(0, 100), bytes.length, type ?? '0'), padded(bytes)];
    if (Buffer.byteLength(path) <= 100) return entry;
    const record = paxRecord('path', path);
    return [header('pax', record.length, 'x'), padded(record), ...entry];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

function header(path: string, size: number, type: string): Buffer {
  const block = Buffer.alloc(512);
  block.write(path, 0, 100);
  block.write('0000600\0', 100);
  block.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  block.write('        ', 148);
  block.write(type, 156);
  block.write('ustar\0', 257);
  block.write(
    `${[...block]
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  return block;
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

function paxRecord(key: string, value: string): Buffer {
  const body = Buffer.from(` ${key}=${value}\n`);
  let length = body.length + 1;
  while (String(length).length + body.length !== length) length += 1;
  return Buffer.concat([Buffer.from(String(length)), body]);
}
