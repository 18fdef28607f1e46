import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose';

/** An issuer outside SPIFFE: signs JWTs. */
export interface JwtIssuer {
  readonly issuer: string;
  /** Its keys as a JWK Set. */
  jwks(): string;
  /** A JWT with these claims beside `iss`; `exp` is in a minute when they have none. */
  sign(claims: Readonly<Record<string, unknown>>): Promise<string>;
  /** Signs with another key from now on; the old one stays among its keys. */
  rotate(): Promise<void>;
}

/** One that serves its keys over HTTP on loopback. */
export interface ServedJwtIssuer extends JwtIssuer {
  readonly jwksUrl: string;
  /** How often the keys were fetched. */
  fetches(): number;
  /** Answers with this status and nothing else until it is undefined again; `hang` never answers. */
  failWith(status: number | 'hang' | undefined): void;
}

const alg = 'RS256';

export async function createJwtIssuer(): Promise<JwtIssuer> {
  const issuer = 'https://login.legacy.test';
  const published: JWK[] = [];
  let signing = await newKey();

  async function newKey() {
    const kid = `key-${published.length + 1}`;
    const { publicKey, privateKey } = await generateKeyPair(alg);
    published.push({ ...(await exportJWK(publicKey)), kid, use: 'sig', alg });
    return { kid, privateKey };
  }

  return {
    issuer,
    jwks: () => JSON.stringify({ keys: published }),
    sign(claims) {
      const jwt = new SignJWT({ iss: issuer, ...claims }).setProtectedHeader({ alg, kid: signing.kid });
      return (claims['exp'] === undefined ? jwt.setExpirationTime('1m') : jwt).sign(signing.privateKey);
    },
    async rotate() {
      signing = await newKey();
    },
  };
}

/** Serves an issuer's keys until the test ends. */
export async function startJwtIssuer(t: TestContext): Promise<ServedJwtIssuer> {
  const issuer = await createJwtIssuer();
  let fetches = 0;
  let failure: number | 'hang' | undefined;
  const server = createServer((_request, response) => {
    fetches += 1;
    if (failure === 'hang') return;
    response.writeHead(failure ?? 200, { 'content-type': 'application/json' });
    response.end(failure === undefined ? issuer.jwks() : '');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    ...issuer,
    jwksUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`,
    fetches: () => fetches,
    failWith(status) {
      failure = status;
    },
  };
}
