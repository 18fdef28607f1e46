import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeCertificatesPem } from '../../../src/spiffe/certificate.ts';
import { emptySnapshot, type TrustSnapshot } from '../../../src/trust/snapshot.ts';
import { currentCredentials } from '../../../src/trust/svid-credentials.ts';
import { createTestAuthority } from '../../support/ca.ts';

const authority = await createTestAuthority('example.org');
const id = 'spiffe://example.org/sidecar';

test('the credentials are those of the SVID of the moment, and the same object as long as it is the same', async () => {
  let snapshot: TrustSnapshot = emptySnapshot;
  const credentials = currentCredentials({ current: () => snapshot }, ({ svids }) => svids[0]);
  assert.equal(credentials(), undefined);
  const first = await authority.svid(id);
  snapshot = { ...emptySnapshot, version: 1, svids: [first] };
  const shown = credentials();
  assert.deepEqual(shown?.certificatePem, encodeCertificatesPem(first.chain));
  snapshot = { ...snapshot, version: 2, svids: [{ ...first, hint: 'other' }] };
  assert.equal(credentials(), shown);
  const second = await authority.svid(id);
  snapshot = { ...snapshot, version: 3, svids: [second] };
  assert.deepEqual(credentials()?.certificatePem, encodeCertificatesPem(second.chain));
  snapshot = emptySnapshot;
  assert.equal(credentials(), undefined);
});
