import { setTimeout as sleep } from "node:timers/promises";
import { checkUser, isObject, parse } from "./check.js";
import { InvalidError } from "./errors.js";
import { unlessAborted } from "./retry.js";
import { Durable, Ordered } from "./stream.js";
import { lifecycleKinds } from "./subjects.js";

/**
 * @typedef {object} Subscription
 * @property {string} [durable] name of a durable consumer: subscribers with the same name
 *   share its events and continue where it was. They must have the same kinds, users and
 *   ackWait. Without one: an ordered consumer for this subscription.
 * @property {string[]} [kinds] some of lifecycleKinds; without: all
 * @property {string[]} [users] narrows the subscription to some users; without: all
 * @property {boolean} [newOnly] a new consumer starts with the next event, not with the
 *   oldest in the stream. It makes no difference to a consumer that exists. On a stream that
 *   comes later it starts with what has happened since the subscription began.
 * @property {number} [ackWait] time without a sign of progress after which NATS delivers an
 *   event again, in ms (30,000). handle may take longer: the client signals progress.
 */

/**
 * @typedef {{
 *   specversion: "1.0", id: string, source: string,
 *   type: "token.stored" | "token.refreshed" | "token.expiring" | "token.expired" | "token.revoked" | "token.removal",
 *   subject: string, time: string, data: import("../types/messages.js").Lifecycle,
 * }} LifecycleEvent
 */

/** @typedef {{
 *   nc: import("@nats-io/nats-core").NatsConnection, apiPrefix: string,
 *   js: import("@nats-io/jetstream").JetStreamClient, jsm: import("@nats-io/jetstream").JetStreamManager,
 *   subjects: import("./subjects.js").Subjects, onError: (err: Error) => void,
 *   wait?: (ms: number, signal: AbortSignal) => Promise<unknown>,
 * }} Nats */

/** @typedef {(event: LifecycleEvent) => unknown} Handle */

/** @typedef {{ number: number, at: string }} Streams how many there are, at a time of the server */

/**
 * A running subscription, as its streams see it.
 *
 * @typedef {object} Running
 * @property {Nats} nats
 * @property {Subscription} s
 * @property {string[]} filters
 * @property {AbortSignal} signal
 * @property {string} since when it began, by the clock of the server; that of a durable began
 *   when its consumer was created on the first stream
 * @property {(msg: import("@nats-io/jetstream").JsMsg) => LifecycleEvent | undefined} eventIn
 * @property {(event: LifecycleEvent) => Promise<void>} handle waits for its turn
 * @property {() => Promise<Streams>} streams
 */

const askEvery = 60_000; // ms between questions how many streams there are

/** @param {number} ms @param {AbortSignal} signal */
const wait = (ms, signal) => sleep(ms, undefined, { signal });

/** @param {Nats} nats @param {Subscription} s @param {Handle} handle @param {AbortSignal | undefined} signal */
export async function subscribe(nats, s, handle, signal) {
  if (signal?.aborted) return;
  const subjects = filters(nats, s);
  const stop = new AbortController();
  const end = () => stop.abort();
  signal?.addEventListener("abort", end, { once: true });
  /** @type {{ err: unknown } | undefined} */
  let failed;
  /** @param {unknown} err */
  const fail = (err) => {
    failed ??= { err };
    end();
  };
  let turn = Promise.resolve();
  /** @type {Running} */
  const running = {
    nats, s, filters: subjects, signal: stop.signal, since: "",
    eventIn: (msg) => eventIn(nats, msg),
    handle(event) {
      const handled = turn.then(async () => {
        if (stop.signal.aborted) throw stop.signal.reason;
        try {
          await handle(event);
        } catch (err) {
          if (!s.durable) fail(err); // before another event's turn
          throw err;
        }
      });
      turn = handled.catch(() => {});
      return handled;
    },
    streams: () => unlessAborted(stop.signal, lifecycleStreams(nats)),
  };
  /** @type {Map<number, Promise<void>>} */
  const streams = new Map();
  try {
    let { number, at } = await running.streams();
    running.since = at;
    for (let first = true; !stop.signal.aborted; first = false) {
      for (let n = 0; n < number && !stop.signal.aborted; n++) {
        if (streams.has(n)) continue;
        const stream = new (s.durable ? Durable : Ordered)(running, n, number);
        const received = stream.run(first).catch(fail).finally(() => streams.delete(n));
        streams.set(n, received);
        if (n === 0) await Promise.race([stream.begun, received]); // the others need to know when that was
      }
      await (nats.wait ?? wait)(askEvery, stop.signal).catch(() => {});
      if (!stop.signal.aborted) ({ number } = await running.streams().catch((err) => (stop.signal.aborted || nats.onError(err), { number })));
    }
  } catch (err) {
    fail(err);
  } finally {
    await Promise.all(streams.values());
    signal?.removeEventListener("abort", end);
  }
  if (failed && !signal?.aborted) throw failed.err;
}

const partitionsKey = "latchkey-partitions";
const maxPartitions = 256;

/** Asks how many streams hold the events. @param {Nats} nats @returns {Promise<Streams>} */
async function lifecycleStreams({ jsm, subjects }) {
  const name = subjects.lifecycleStream();
  const info = await jsm.streams.info(name);
  const text = info.config.metadata?.[partitionsKey] ?? "1";
  if (!/^[1-9][0-9]{0,2}$/.test(text) || Number(text) > maxPartitions) {
    throw new InvalidError("number of streams", `${partitionsKey} of ${name} is ${JSON.stringify(text)}, not 1 to ${maxPartitions}`);
  }
  return { number: Number(text), at: /** @type {string} */ (info.ts) };
}

/** @param {Nats} nats @param {Subscription} s */
function filters({ subjects }, { kinds = lifecycleKinds, users = [] }) {
  for (const kind of kinds) {
    if (!lifecycleKinds.includes(kind)) throw new InvalidError("subscription", "a kind that there is not");
  }
  for (const user of users) checkUser("subscription", user);
  const chosen = kinds.length > 0 ? kinds : lifecycleKinds;
  return [...new Set(chosen.flatMap((kind) => (users.length > 0 ? users.map((user) => subjects.of(kind, user)) : [subjects.all(kind)])))].sort();
}

/** The event in a message, if it is one; no worker wrote anything else. @param {Nats} nats @param {import("@nats-io/jetstream").JsMsg} msg */
function eventIn({ subjects, onError }, msg) {
  try {
    const event = parse("lifecycle event", msg.string());
    if (!isObject(event) || event.specversion !== "1.0" || typeof event.id !== "string" || !event.id || !isObject(event.data) || typeof event.data.userId !== "string") {
      throw new InvalidError("lifecycle event", "not a CloudEvent about a grant");
    }
    if (!lifecycleKinds.includes(event.type) || msg.subject !== subjects.of(event.type, event.data.userId)) {
      throw new InvalidError("lifecycle event", "its subject is that of another kind or user");
    }
    return /** @type {LifecycleEvent} */ (event);
  } catch (err) {
    onError(/** @type {Error} */ (err));
    return undefined;
  }
}
