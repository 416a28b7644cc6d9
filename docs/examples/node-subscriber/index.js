// Reacts to tokens that are dead: the user has to connect again.
//
//   NATS_URL        nats://127.0.0.1:4222
//   NATS_CREDS      file with the credentials of the subscriber, if it needs any
//   LATCHKEY_PREFIX nats.prefix of the installation, if it has one
import { readFile } from "node:fs/promises";
import { connect, credsAuthenticator } from "@nats-io/transport-node";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";

const { NATS_URL, NATS_CREDS, LATCHKEY_PREFIX: prefix = "" } = process.env;
const stream = prefix ? `${prefix.toUpperCase()}_LATCHKEY_LIFECYCLE` : "LATCHKEY_LIFECYCLE";
const subject = prefix ? `${prefix}.token.expired.*` : "token.expired.*";
const maxPause = 60_000; // ms

const nc = await connect({
  servers: NATS_URL,
  name: "example subscriber",
  inboxPrefix: "_INBOX_example_subscriber",
  maxReconnectAttempts: -1,
  ignoreAuthErrorAbort: true, // a refusal may be as passing as an outage
  authenticator: NATS_CREDS ? credsAuthenticator(await readFile(NATS_CREDS)) : undefined,
});

// NATS keeps the consumer and its place: after a restart it goes on there, and
// several processes with this name share the events.
const jsm = await jetstreamManager(nc);
await jsm.consumers.add(stream, {
  durable_name: "example-expired",
  ack_policy: AckPolicy.Explicit,
  filter_subject: subject,
});
const consumer = await jetstream(nc).consumers.get(stream, "example-expired");
const messages = await consumer.consume({ max_messages: 10 });

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => messages.close());

for await (const message of messages) {
  const event = message.json();
  try {
    await askToConnectAgain(event);
    message.ack();
  } catch (err) {
    console.error(`event ${event.id}: ${err.message}; it will come again`);
    message.nak(Math.min(1000 * 2 ** (message.info.deliveryCount - 1), maxPause));
  }
}
await nc.drain();

// Yours: send a mail, set a flag that the page shows. Events come at least
// once, so do nothing for an event.id that you have seen.
async function askToConnectAgain({ id, data }) {
  console.log(JSON.stringify({ event: id, user: data.userId, broker: data.brokerType, reason: data.reason }));
}
