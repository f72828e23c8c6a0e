// An OIDC issuer that is not ours (the package oidc-provider), as tests use it. Its settings come as lines of JSON on standard input, the first with the
// certificate; each is answered by a line on standard output once it counts: the issuer's URL.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:https';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const installed = createRequire(pathToFileURL(process.argv[2] + '/'));
const { default: Provider, errors } = await import(pathToFileURL(installed.resolve('oidc-provider')).href);

// key is the signing key of an id, which is made when it is first named.
const keys = new Map();
function key(kid) {
  if (!keys.has(kid)) {
    const made = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
    keys.set(kid, { ...made, kid, use: 'sig', alg: 'ES256' });
  }
  return keys.get(kid);
}

// issuer is one with these settings: { clients: [{ id, secret }], resources: { URL: { audience, scope, seconds, alg } }, keys: [ID] }, the first of which signs.
function issuer(url, settings) {
  return new Provider(url, {
    clients: settings.clients.map(({ id, secret }) => ({
      client_id: id, client_secret: secret, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
      id_token_signed_response_alg: 'ES256',
    })),
    jwks: { keys: settings.keys.map(key) },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo(_, resource) {
          const { audience, scope, seconds, alg } = settings.resources[resource] ?? {};
          if (!audience) throw new errors.InvalidTarget();
          const sign = alg === 'HS256' ? { alg, key: Buffer.alloc(32, 7) } : { alg: 'ES256' };
          return { audience, scope, accessTokenTTL: seconds, accessTokenFormat: 'jwt', jwt: { sign } };
        },
      },
    },
  });
}

let server;
let url;
let current;
for await (const line of createInterface({ input: process.stdin })) {
  const settings = JSON.parse(line);
  if (!server) {
    server = createServer({ cert: settings.cert, key: settings.key }, (request, response) => current(request, response));
    await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
    url = `https://127.0.0.1:${server.address().port}`;
  }
  current = issuer(url, settings).callback();
  console.log(url);
}
process.exit();
