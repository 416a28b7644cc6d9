// A backend that hands a user's current tokens to the page, which hands them to
// Mesh Link: createLink({ accessTokens }).
//
//   NATS_URL        nats://127.0.0.1:4222
//   NATS_CREDS      file with the credentials of the backend, if it needs any
//   LATCHKEY_PREFIX nats.prefix of the installation, if it has one
//   PORT            to listen on (any free one)
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { Client, InvalidError, RefusedError } from "@latchkey/client";
import { connect, credsAuthenticator } from "@nats-io/transport-node";

const { NATS_URL, NATS_CREDS, LATCHKEY_PREFIX, PORT = "0" } = process.env;

const nc = await connect({
  servers: NATS_URL,
  name: "example backend",
  inboxPrefix: "_INBOX_example_backend", // replies hold tokens: an inbox of its own
  maxReconnectAttempts: -1,
  ignoreAuthErrorAbort: true, // a refusal may be as passing as an outage
  authenticator: NATS_CREDS ? credsAuthenticator(await readFile(NATS_CREDS)) : undefined,
});
const latchkey = new Client(nc, { prefix: LATCHKEY_PREFIX });

// Yours: the user of the session. Never take it from what the page says.
function userOf(request) {
  return request.headers["x-example-user"];
}

const maxBody = 64 << 10;

async function refusedBy(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > maxBody) throw new SyntaxError("too large");
    parts.push(part);
  }
  return JSON.parse(Buffer.concat(parts)).refused ?? [];
}

const server = createServer(async (request, response) => {
  const answer = (status, body) =>
    response.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store" }).end(JSON.stringify(body));
  const user = userOf(request);
  if (request.url !== "/access-tokens" || !["GET", "POST"].includes(request.method)) return answer(404, {});
  if (!user) return answer(401, {});
  try {
    // A call with a token was answered 401: the page sends {"refused": [{"grantId", "version"}]}, as "expiries" named them.
    const refused = request.method === "POST" ? await refusedBy(request) : [];
    const { accessTokens, expiries } = await latchkey.tokens({ userId: user, refused });
    answer(200, { accessTokens, expiries });
  } catch (err) {
    if (err instanceof SyntaxError || err instanceof InvalidError || (err instanceof RefusedError && err.code === "bad_request")) return answer(400, {}); // what the page sent
    if (err instanceof RefusedError && err.reconnect) return answer(409, { code: err.code }); // show "connect again"
    console.error(`tokens of a user: ${err.message}`); // the code, never a token
    answer(503, {});
  }
});

server.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => server.close(() => nc.drain()));
