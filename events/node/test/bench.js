// A NATS server with the streams that a client meets, and no worker. NATS_URL names it.
import { randomUUID } from "node:crypto";
import { after } from "node:test";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { headers } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { Client, lifecycleKinds, subjectToken } from "../lib/index.js";

export const payload = { accessToken: { brokerType: "coinbase", accountTokens: [{ account: { accountId: "a" }, accessToken: "SECRET", refreshToken: "SECRET too" }] } };
export const connectedAt = "2026-03-01T09:30:00Z";
export const alice = { userId: "alice", connectedAt, payload };

const nc = await connect({ servers: process.env.NATS_URL, inboxPrefix: "_INBOX_test" });
const jsm = await jetstreamManager(nc);
after(() => nc.close());

export function bench(prefix = `t${randomUUID().slice(0, 8)}`) {
  const subject = (name, user) => [...(prefix ? [prefix] : []), name, ...(user === undefined ? [] : [subjectToken(user)])].join(".");
  const lifecycle = `${prefix ? `${prefix.toUpperCase()}_` : ""}LATCHKEY_LIFECYCLE`;
  const stream = (n) => (n === 0 ? lifecycle : `${lifecycle}_${n}`);
  const problems = [];
  let streams = 1;
  // FNV-1a of the user as it is in the subject, as workers choose the stream.
  const streamOf = (userId) => [...subjectToken(userId)].reduce((h, c) => Math.imul(h ^ c.charCodeAt(0), 16777619) >>> 0, 2166136261) % streams;
  const upTo = (config) => jsm.streams.add(config).catch((err) => (/already in use/.test(err.message) ? jsm.streams.update(config.name, config) : Promise.reject(err)));
  return {
    nc,
    jsm,
    prefix,
    subject,
    lifecycle,
    problems,
    client: (options = {}) => new Client(nc, { prefix, onError: (err) => problems.push(err), ...options }),
    // The stream of connects and disconnects.
    integration: () => jsm.streams.add({ name: `${prefix}_i`, subjects: [subject("integration.connected"), subject("integration.disconnected")] }),
    stored: async (seq) => (await jsm.streams.getMessage(`${prefix}_i`, { seq })).json(),
    count: async () => (await jsm.streams.info(`${prefix}_i`)).state.messages,
    // One of the streams of lifecycle events, and a user whose events are there.
    stream,
    user: (n) => Array.from({ length: 1000 }, (_, i) => `user${i}`).find((user) => streamOf(user) === n),
    // The streams of lifecycle events, and an event in one of them. The first tells last of the others.
    events: async (number = 1) => {
      streams = number;
      for (let n = number - 1; n >= 0; n--) {
        const src = subject(`latchkey.lifecycle.${n}.*.*.*`);
        const dest = subject("{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}");
        if (number === 1) await upTo({ name: lifecycle, subjects: lifecycleKinds.map((kind) => `${subject(kind)}.*`) });
        else await upTo({ name: stream(n), subjects: [src], subject_transform: { src, dest }, metadata: n === 0 ? { "latchkey-partitions": `${number}` } : {} });
      }
    },
    tell: (id, type, userId, body = { specversion: "1.0", id, source: "latchkey", type, time: connectedAt, data: { userId, grantId: "g", brokerType: "b", accounts: [], version: 1 } }) =>
      jetstream(nc).publish(streams === 1 ? subject(type, userId) : subject(`latchkey.lifecycle.${streamOf(userId)}.${type}`, userId), JSON.stringify(body)),
    // answer answers requests, each with the next of the answers, and after that with the last.
    // An answer is a body, a refusal's code, null for none, or a function of the request.
    answer: (name, ...answers) => {
      const heard = [];
      nc.subscribe(subject(name), {
        callback: async (_, msg) => {
          heard.push(msg.data.length > 0 ? msg.json() : {});
          let answer = answers.length > 1 ? answers.shift() : answers[0];
          if (typeof answer === "function") answer = await answer(heard.at(-1));
          if (answer === null) return;
          const code = answer.code;
          const head = headers();
          if (code) head.set("Nats-Service-Error", code);
          msg.respond(typeof answer === "string" ? answer : JSON.stringify(answer), { headers: head });
        },
      });
      return heard;
    },
  };
}

/** Waits until a condition holds. */
export async function until(condition, what) {
  for (const end = Date.now() + 30_000; !(await condition()); ) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
