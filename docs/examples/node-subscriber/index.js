// Reacts to tokens that are dead: the user has to connect again.
//
//   NATS_URL        nats://127.0.0.1:4222
//   NATS_CREDS      file with the credentials of the subscriber, if it needs any
//   LATCHKEY_PREFIX nats.prefix of the installation, if it has one
import { readFile } from "node:fs/promises";
import { Client } from "@latchkey/client";
import { connect, credsAuthenticator } from "@nats-io/transport-node";

const { NATS_URL, NATS_CREDS, LATCHKEY_PREFIX } = process.env;

const nc = await connect({
  servers: NATS_URL,
  name: "example subscriber",
  inboxPrefix: "_INBOX_example_subscriber",
  maxReconnectAttempts: -1,
  ignoreAuthErrorAbort: true, // a refusal may be as passing as an outage
  authenticator: NATS_CREDS ? credsAuthenticator(await readFile(NATS_CREDS)) : undefined,
});
const latchkey = new Client(nc, { prefix: LATCHKEY_PREFIX, onError: (err) => console.error(err.message) });

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort());

// NATS keeps the consumer and its place: after a restart it goes on there, and
// several processes with this name share the events. After an error of the function
// the event comes again.
await latchkey.subscribe({ durable: "example-expired", kinds: ["token.expired"] }, askToConnectAgain, { signal: stop.signal });
await nc.drain();

// Yours: send a mail, set a flag that the page shows. Events come at least
// once, so do nothing for an event.id that you have seen.
async function askToConnectAgain({ id, data }) {
  console.log(JSON.stringify({ event: id, user: data.userId, broker: data.brokerType, reason: data.reason }));
}
