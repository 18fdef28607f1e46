import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Certificate } from '../../src/spiffe/certificate.ts';
import type { X509Svid } from '../../src/spiffe/x509-svid.ts';
import { type FakeCall, startFakeWorkloadApi } from '../support/fake-workload-api.ts';
import { tempDirectory } from '../support/process.ts';

/** What a Workload API says of X.509: one full state. */
export type Publication = Readonly<{
  svids: readonly X509Svid[];
  authorities: readonly Certificate[];
  crls?: readonly Buffer[];
}>;

/** A Workload API on a socket that says what the test publishes, to streams that are open and those that open later. */
export async function startPublisher(
  t: TestContext,
  first: Publication,
): Promise<Readonly<{ address: string; publish(next: Publication): void }>> {
  let current = first;
  const open: FakeCall<'FetchX509SVID'>[] = [];
  const send = (call: FakeCall<'FetchX509SVID'>): void => {
    const { svids, authorities, crls = [] } = current;
    const bundle = Buffer.concat(authorities.map(({ der }) => der));
    call.send({
      svids: svids.map(({ spiffeId, chain, privateKey, hint }) => ({
        spiffeId,
        x509Svid: Buffer.concat(chain.map(({ der }) => der)),
        x509SvidKey: privateKey,
        bundle,
        hint,
      })),
      crl: [...crls],
    });
  };
  const api = await startFakeWorkloadApi(
    { path: join(await tempDirectory(t), 'workload.sock') },
    {
      FetchX509SVID(call) {
        open.push(call);
        send(call);
      },
    },
  );
  t.after(() => api.stop());
  return {
    address: api.address,
    publish(next) {
      current = next;
      for (const call of open) send(call);
    },
  };
}
