import { setTimeout as sleep } from "node:timers/promises";
import { AckPolicy, DeliverPolicy, JetStreamApiError } from "@nats-io/jetstream";
import { DurableError, isFinal, isNoResponders, isRefused } from "./errors.js";
import { pauses, unlessAborted } from "./retry.js";

/** @typedef {import("./subscribe.js").Running} Running */
/** @typedef {import("@nats-io/jetstream").JsMsg} JsMsg */

const consumerExists = 10_148;
const consumerNotFound = 10_014;
const streamNotFound = 10_059;
const apiTimeout = 5_000; // ms
const expires = 5_000; // ms for which one pull waits; then the consumer is looked for
const askEvery = 60_000; // ms between questions how far the consumer is
const maxDelay = 60_000;
const maxBuffer = 100; // events that wait in memory for all streams together

/** What a subscription receives from one stream. */
class Stream {
  #n;
  /** Every event up to this sequence of the stream was acknowledged, or handled, at told, a time of the server. */
  done = 0;
  /** @type {number | undefined} */
  told;
  /** @type {() => void} */
  #begin = () => {};
  /** @type {Promise<void>} */
  begun = new Promise((resolve) => (this.#begin = resolve));

  /** @param {Running} running @param {number} n @param {number} number */
  constructor(running, n, number) {
    this.running = running;
    this.#n = n;
    this.name = running.nats.subjects.lifecycleStream(n);
    this.buffer = Math.max(Math.floor(maxBuffer / number), 1);
  }

  /** @param {(since: string) => void} _begun @returns {Promise<void>} */
  async receive(_begun) {}

  /**
   * Receives until the subscription ends, or the stream is gone and no longer one of the
   * installation's.
   *
   * @param {boolean} must whether it fails if it can't begin
   */
  async run(must) {
    const { nats, signal } = this.running;
    for (let pause = pauses(); ; ) {
      try {
        return await this.receive((since) => {
          if (must && this.#n === 0) this.running.since = since;
          must = false;
          pause = pauses();
          this.#begin();
        });
      } catch (err) {
        if (signal.aborted) return;
        const missing = this.#n > 0 && /** @type {any} */ (err)?.code === streamNotFound;
        const final = err instanceof DurableError || nats.nc.isClosed() || (isFinal(err) && !isRefused(err));
        if ((must && !missing) || final) throw this.#named(err);
        if (!(await this.#left(err))) nats.onError(this.#named(err));
        else if (missing) return;
        must = false;
        await sleep(Number(pause.next().value), undefined, { signal }).catch(() => {});
        if (signal.aborted) return;
      }
    }
  }

  /** The error with the stream's name; the first has the one that all know. @param {unknown} err @returns {Error} */
  #named(err) {
    const error = /** @type {Error} */ (err);
    return this.#n === 0 || err instanceof DurableError ? error : new Error(`${this.name}: ${error.message}`, { cause: err });
  }

  /** Whether an operator has removed the stream, which is none of the installation's any more. @param {any} err */
  async #left(err) {
    const lost = [streamNotFound, consumerNotFound, 503].includes(err?.code) || err?.message === "consumer deleted" || isNoResponders(err);
    if (this.#n === 0 || !lost) return false;
    return this.running.streams().then(({ number }) => this.#n >= number, () => false);
  }

  /** Where a new consumer begins: where a lost one was, if that is known. An event comes rather twice than never. */
  async start() {
    const { nats, s, since } = this.running;
    if (this.told === undefined) {
      if (!s.newOnly) return { deliver_policy: DeliverPolicy.All };
      if (this.#n === 0 && s.durable) return { deliver_policy: DeliverPolicy.New };
      return { deliver_policy: DeliverPolicy.StartTime, opt_start_time: since }; // the stream may have been added since
    }
    const stream = await nats.jsm.streams.info(this.name).catch((err) => {
      if (err?.code === streamNotFound || isRefused(err)) return undefined;
      throw err; // it is not known yet
    });
    // A stream that was created since counts from 1 again, and a restored one from before.
    if (!stream || Date.parse(stream.created) > this.told || stream.state.last_seq < this.done) return { deliver_policy: DeliverPolicy.All };
    return { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: this.done + 1 };
  }
}

/** A stream with a durable consumer. */
export class Durable extends Stream {
  #asked = 0;

  get #durable() {
    return /** @type {string} */ (this.running.s.durable);
  }

  get #ackWait() {
    return this.running.s.ackWait ?? 30_000;
  }

  /** Handles events until the consumer is lost or the signal is aborted. @override @param {(since: string) => void} begun */
  async receive(begun) {
    const { nats, signal } = this.running;
    await this.#create();
    const info = await nats.jsm.consumers.info(this.name, this.#durable);
    this.#note(info);
    const consumer = await nats.js.consumers.get(this.name, this.#durable);
    begun(info.created);
    while (!signal.aborted) {
      // One at a time, because the ack wait of messages in a buffer would run out.
      const next = consumer.next({ expires });
      const msg = await unlessAborted(signal, next).catch((err) => {
        if (signal.aborted) next.then((late) => late?.nak()).catch(() => {}); // for another subscriber
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
    const { nats, filters } = this.running;
    const config = {
      durable_name: this.#durable,
      filter_subjects: filters,
      ack_policy: AckPolicy.Explicit,
      ack_wait: this.#ackWait * 1e6, // ns
      max_deliver: -1,
      ...(await this.start()),
    };
    const body = JSON.stringify({ stream_name: this.name, config, action: "create" });
    const reply = await nats.nc.request(`${nats.apiPrefix}.CONSUMER.CREATE.${this.name}.${this.#durable}`, body, { timeout: apiTimeout });
    const { error } = /** @type {{ error?: import("@nats-io/jetstream").ApiError }} */ (reply.json());
    if (error && error.err_code !== consumerExists) throw new JetStreamApiError(error);
  }

  /** Keeps how far the consumer is, unless it is another than this subscription's. @param {import("@nats-io/jetstream").ConsumerInfo} info */
  #note(info) {
    const found = this.#differences(info.config);
    if (found.length > 0) throw new DurableError(this.#durable, found);
    this.done = info.ack_floor.stream_seq;
    this.told = Date.parse(info.ts ?? "");
    this.#asked = performance.now();
  }

  /** What has events handled otherwise than this subscription asks for. @param {import("@nats-io/jetstream").ConsumerConfig} have */
  #differences(have) {
    const { filters } = this.running;
    const found = [];
    const subjects = have.filter_subject ? [have.filter_subject] : [...(have.filter_subjects ?? [])].sort();
    if (subjects.join(" ") !== filters.join(" ")) found.push(`the filter subjects ${subjects.join(" ")}, not ${filters.join(" ")}`);
    if (have.ack_policy !== AckPolicy.Explicit) found.push(`the ack policy ${have.ack_policy}, not ${AckPolicy.Explicit}`);
    const wait = (have.ack_wait ?? 0) / 1e6;
    if (wait !== this.#ackWait) found.push(`an ack wait of ${wait} ms, not ${this.#ackWait} ms`);
    if ((have.max_deliver ?? -1) > 0) found.push(`at most ${have.max_deliver} deliveries, not any number`);
    if (have.headers_only) found.push("headers only, not events");
    if (have.deliver_subject) found.push("a deliver subject: it is a push consumer");
    return found;
  }

  /**
   * Handles a message and acknowledges it, even if the signal is aborted meanwhile. It signals
   * progress also while the message waits for its turn.
   *
   * @param {JsMsg} msg
   */
  async #deliver(msg) {
    const { nats, signal } = this.running;
    const event = this.running.eventIn(msg);
    if (!event) return msg.term("not a lifecycle event");
    const signs = setInterval(() => msg.working(), Math.max(this.#ackWait / 3, 1));
    try {
      await this.running.handle(event);
      msg.ack();
    } catch (err) {
      if (signal.aborted && err === signal.reason) return msg.nak(); // for another subscriber
      nats.onError(new Error(`handling ${event.type} ${event.id}`, { cause: err }));
      msg.nak(Math.min(1000 * 2 ** (msg.info.deliveryCount - 1), maxDelay));
    } finally {
      clearInterval(signs);
    }
  }
}

/** A stream with an ordered consumer. */
export class Ordered extends Stream {
  /** Handles events in the stream's order until the consumer is lost or the signal is aborted. @override @param {(since: string) => void} begun */
  async receive(begun) {
    const { nats, signal, filters, since } = this.running;
    const consumer = await nats.js.consumers.get(this.name, { filter_subjects: filters, ...(await this.start()) });
    // What the library can't create again tells nobody, so it is created again here.
    const messages = await consumer.consume({ abort_on_missing_resource: true, max_messages: this.buffer });
    void (async () => {
      for await (const { type } of messages.status()) if (type === "reset") messages.stop(new Error("the consumer skipped events"));
    })();
    const end = () => messages.stop();
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    begun(since);
    try {
      for await (const msg of messages) {
        if (signal.aborted) return;
        const event = this.running.eventIn(msg);
        if (event) await this.running.handle(event);
        this.done = msg.seq;
        this.told = msg.time.getTime();
      }
    } finally {
      signal.removeEventListener("abort", end);
      await messages.close();
    }
    if (!signal.aborted) throw new Error("the consumer has ended");
  }
}
