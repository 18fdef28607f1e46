/**
 * A process that writes sets into a directory: `once` prints the error, if any, and `forever` goes on until it is killed.
 */
import process from 'node:process';
import { buildSet } from '../../../src/outputs/output-set.ts';
import { removeOldSets, writeSet } from '../../../src/outputs/write-set.ts';
import { messageOf } from '../../../src/runtime/errors.ts';
import { newSvid, snapshotOf, specOf } from './sets.ts';

const [mode, directory = ''] = process.argv.slice(2);
const svids = [await newSvid(), await newSvid(), await newSvid()];
const spec = specOf(directory);
try {
  const rounds = mode === 'forever' ? Number.POSITIVE_INFINITY : 1;
  for (let round = 0; round < rounds; round += 1) {
    const svid = svids[round % svids.length];
    if (svid === undefined) break;
    const files = buildSet(spec, { svid, snapshot: snapshotOf(svid), tokens: new Map() });
    const { name } = await writeSet(directory, files, spec);
    await removeOldSets(directory, [name]);
  }
  process.stdout.write('written\n');
} catch (error) {
  process.stdout.write(`${messageOf(error)}\n`);
}
