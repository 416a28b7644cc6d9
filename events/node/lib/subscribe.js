import { setTimeout as sleep } from "node:timers/promises";
import { AckPolicy, DeliverPolicy, JetStreamApiError } from "@nats-io/jetstream";
import { checkUser, isObject, parse } from "./check.js";
import { DurableError, InvalidError, isFinal } from "./errors.js";
import { pauses, unlessAborted } from "./retry.js";
import { lifecycleKinds } from "./subjects.js";

/**
 * @typedef {object} Subscription
 * @property {string} [durable] name of a durable consumer: subscribers with the same name
 *   share its events and continue where it was. They must have the same kinds, users and
 *   ackWait. Without one: an ordered consumer for this subscription.
 * @property {string[]} [kinds] some of lifecycleKinds; without: all
 * @property {string[]} [users] narrows the subscription to some users; without: all
 * @property {boolean} [newOnly] a new consumer starts with the next event, not with the
 *   oldest in the stream. It makes no difference to a consumer that exists.
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
 * }} Nats */

/** @typedef {(event: LifecycleEvent) => unknown} Handle */

const consumerExists = 10_148;
const apiTimeout = 5_000; // ms
const expires = 5_000; // ms for which one pull waits; then the consumer is looked for
const askEvery = 60_000; // ms between questions how far the consumer is
const maxDelay = 60_000;

/** @param {Nats} nats @param {Subscription} s @param {Handle} handle @param {AbortSignal | undefined} signal */
export async function subscribe(nats, s, handle, signal) {
  if (signal?.aborted) return;
  const subjects = filters(nats, s);
  if (!s.durable) return ordered(nats, s, subjects, handle, signal);
  const subscription = new Durable(nats, s, subjects, handle, signal);
  for (let pause = pauses(); ; ) {
    try {
      return await subscription.receive(() => {
        pause = pauses();
      });
    } catch (err) {
      if (signal?.aborted) return;
      if (!subscription.began || err instanceof DurableError || isFinal(err)) throw err;
      nats.onError(/** @type {Error} */ (err));
      await sleep(Number(pause.next().value), undefined, { signal }).catch(() => {});
      if (signal?.aborted) return;
    }
  }
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

/** A subscription with a durable consumer. */
class Durable {
  began = false;
  #nats;
  #s;
  #filters;
  #handle;
  #signal;
  #ackWait;
  /** Every event up to this sequence of the stream was acknowledged at told, a time of the server. */
  #done = 0;
  /** @type {number | undefined} */
  #told;
  #asked = 0;

  /** @param {Nats} nats @param {Subscription} s @param {string[]} subjects @param {Handle} handle @param {AbortSignal | undefined} signal */
  constructor(nats, s, subjects, handle, signal) {
    this.#nats = nats;
    this.#s = s;
    this.#filters = subjects;
    this.#handle = handle;
    this.#signal = signal;
    this.#ackWait = s.ackWait ?? 30_000;
  }

  get #stream() {
    return this.#nats.subjects.lifecycleStream;
  }

  get #name() {
    return /** @type {string} */ (this.#s.durable);
  }

  /** Handles events until the consumer is lost or the signal is aborted. @param {() => void} begun */
  async receive(begun) {
    await this.#create();
    this.#note(await this.#nats.jsm.consumers.info(this.#stream, this.#name));
    const consumer = await this.#nats.js.consumers.get(this.#stream, this.#name);
    this.began = true;
    begun();
    while (!this.#signal?.aborted) {
      // One at a time, because the ack wait of messages in a buffer would run out.
      const next = consumer.next({ expires });
      const msg = await unlessAborted(this.#signal, next).catch((err) => {
        if (this.#signal?.aborted) next.then((late) => late?.nak()).catch(() => {}); // for another subscriber
        throw err;
      });
      if (msg) await this.#deliver(msg);
      if (!msg || performance.now() - this.#asked > askEvery) this.#note(await consumer.info());
    }
  }

  /**
   * Creates the consumer if there is none. It changes none, because others may share it. NATS's
   * library would request an older subject, which roles permit nobody.
   */
  async #create() {
    const config = {
      durable_name: this.#name,
      filter_subjects: this.#filters,
      ack_policy: AckPolicy.Explicit,
      ack_wait: this.#ackWait * 1e6, // ns
      max_deliver: -1,
      ...(await this.#start()),
    };
    const { nc, apiPrefix } = this.#nats;
    const body = JSON.stringify({ stream_name: this.#stream, config, action: "create" });
    const reply = await nc.request(`${apiPrefix}.CONSUMER.CREATE.${this.#stream}.${this.#name}`, body, { timeout: apiTimeout });
    const { error } = /** @type {{ error?: import("@nats-io/jetstream").ApiError }} */ (reply.json());
    if (error && error.err_code !== consumerExists) throw new JetStreamApiError(error);
  }

  /** Where a new consumer begins: where a lost one was, if that is known. An event comes rather twice than never. */
  async #start() {
    if (this.#told === undefined) return { deliver_policy: this.#s.newOnly ? DeliverPolicy.New : DeliverPolicy.All };
    const stream = await this.#nats.jsm.streams.info(this.#stream).catch(() => undefined);
    // A stream that was created since counts from 1 again, and a restored one from before.
    if (!stream || Date.parse(stream.created) > this.#told || stream.state.last_seq < this.#done) return { deliver_policy: DeliverPolicy.All };
    return { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: this.#done + 1 };
  }

  /** Keeps how far the consumer is, unless it is another than this subscription's. @param {import("@nats-io/jetstream").ConsumerInfo} info */
  #note(info) {
    const found = this.#differences(info.config);
    if (found.length > 0) throw new DurableError(this.#name, found);
    this.#done = info.ack_floor.stream_seq;
    this.#told = Date.parse(info.ts ?? "");
    this.#asked = performance.now();
  }

  /** What has events handled otherwise than this subscription asks for. @param {import("@nats-io/jetstream").ConsumerConfig} have */
  #differences(have) {
    const found = [];
    const subjects = have.filter_subject ? [have.filter_subject] : [...(have.filter_subjects ?? [])].sort();
    if (subjects.join(" ") !== this.#filters.join(" ")) found.push(`the filter subjects ${subjects.join(" ")}, not ${this.#filters.join(" ")}`);
    if (have.ack_policy !== AckPolicy.Explicit) found.push(`the ack policy ${have.ack_policy}, not ${AckPolicy.Explicit}`);
    const wait = (have.ack_wait ?? 0) / 1e6;
    if (wait !== this.#ackWait) found.push(`an ack wait of ${wait} ms, not ${this.#ackWait} ms`);
    if ((have.max_deliver ?? -1) > 0) found.push(`at most ${have.max_deliver} deliveries, not any number`);
    if (have.headers_only) found.push("headers only, not events");
    if (have.deliver_subject) found.push("a deliver subject: it is a push consumer");
    return found;
  }

  /** Handles a message and acknowledges it, even if the signal is aborted meanwhile. @param {import("@nats-io/jetstream").JsMsg} msg */
  async #deliver(msg) {
    const event = eventIn(this.#nats, msg);
    if (!event) return msg.term("not a lifecycle event");
    const signs = setInterval(() => msg.working(), Math.max(this.#ackWait / 3, 1));
    try {
      await this.#handle(event);
      msg.ack();
    } catch (err) {
      this.#nats.onError(new Error(`handling ${event.type} ${event.id}`, { cause: err }));
      msg.nak(Math.min(1000 * 2 ** (msg.info.deliveryCount - 1), maxDelay));
    } finally {
      clearInterval(signs);
    }
  }
}

/** Handles events in order until the signal is aborted or handle fails. @param {Nats} nats @param {Subscription} s @param {string[]} filter_subjects @param {Handle} handle @param {AbortSignal | undefined} signal */
async function ordered(nats, s, filter_subjects, handle, signal) {
  const consumer = await nats.js.consumers.get(nats.subjects.lifecycleStream, { filter_subjects, deliver_policy: s.newOnly ? DeliverPolicy.New : DeliverPolicy.All });
  const messages = await consumer.consume();
  const end = () => messages.stop();
  signal?.addEventListener("abort", end, { once: true });
  if (signal?.aborted) end();
  try {
    for await (const msg of messages) {
      if (signal?.aborted) return;
      const event = eventIn(nats, msg);
      if (event) await handle(event);
    }
  } finally {
    signal?.removeEventListener("abort", end);
    await messages.close();
  }
}
