import { connect } from 'node:tls';
import { messageOf } from '../runtime/errors.ts';

export type TlsProbeOptions = Readonly<{
  port: number;
  /** What the client shows of itself; nothing when absent. */
  identity?: Readonly<{ certificatePem: string | Buffer; privateKeyPem: string | Buffer }>;
  timeoutMs?: number;
}>;

/** What one TLS client saw of a server on this machine. */
export type TlsProbe = Readonly<{
  /** `TLSv1.3`; undefined when there was no handshake at all. */
  protocol: string | undefined;
  /** The serial number of the server's certificate, in upper case hex. */
  serial: string | undefined;
  /** The server's SPIFFE ID, as its certificate has it. */
  uri: string | undefined;
  /** The status of the HTTP request that was sent after the handshake. */
  status: number | undefined;
  /** Why there was no answer. */
  refusal: string | undefined;
}>;

/**
 * Opens a TLS connection to a port of this machine, asks `GET /` over it and tells what happened; never rejects. It looks
 * and does not trust: the server's certificate is reported, not verified. In TLS 1.3 a server that refuses a client's
 * certificate says so only after the client's part of the handshake, hence the request.
 */
export function probeTls(options: TlsProbeOptions): Promise<TlsProbe> {
  const { port, identity, timeoutMs = 5000 } = options;
  return new Promise((resolve) => {
    let seen: Omit<TlsProbe, 'status' | 'refusal'> = {
      protocol: undefined,
      serial: undefined,
      uri: undefined,
    };
    const socket = connect({
      host: '127.0.0.1',
      port,
      rejectUnauthorized: false,
      ...(identity === undefined ? {} : { cert: identity.certificatePem, key: identity.privateKeyPem }),
    });
    const end = (status: number | undefined, refusal: string | undefined): void => {
      socket.destroy();
      resolve(Object.freeze({ ...seen, status, refusal }));
    };
    let answer = '';
    socket.setTimeout(timeoutMs, () => end(undefined, `no answer within ${timeoutMs} ms`));
    socket.once('error', (error) => end(undefined, messageOf(error)));
    socket.once('close', () => end(undefined, 'connection closed without an answer'));
    socket.once('secureConnect', () => {
      const certificate = socket.getPeerX509Certificate();
      seen = {
        protocol: socket.getProtocol() ?? undefined,
        serial: certificate?.serialNumber,
        uri: /URI:(?<uri>[^,]+)/.exec(certificate?.subjectAltName ?? '')?.groups?.uri,
      };
      socket.write('GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n');
    });
    socket.on('data', (part: Buffer) => {
      answer += part.toString('latin1');
      const status = /^HTTP\/1\.1 (?<status>\d{3}) /.exec(answer)?.groups?.status;
      if (status !== undefined) end(Number(status), undefined);
      else if (answer.length > 64) end(undefined, 'an answer that is not HTTP');
    });
  });
}
