import { randomUUID } from "node:crypto";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { checkUser, connectedBody, disconnectedBody, isObject, parse } from "./check.js";
import { InvalidError, isFinal, isNoResponders, isTimeout, NoWorkerError, RefusedError, TooLargeError } from "./errors.js";
import { retry } from "./retry.js";
import { open, replyKey, seal, WorkerKeys } from "./sealing.js";
import { subscribe } from "./subscribe.js";
import { Subjects } from "./subjects.js";

/** @typedef {import("@nats-io/nats-core").NatsConnection} NatsConnection */
/** @typedef {import("@nats-io/nats-core").Msg} Msg */
/** @typedef {import("../types/messages.js").TokenRequest} TokenRequest */
/** @typedef {import("../types/messages.js").TokenReply} TokenReply */
/** @typedef {import("../types/messages.js").MFARequest} MFARequest */
/** @typedef {import("../types/messages.js").MFAReply} MFAReply */

/**
 * @typedef {object} Options
 * @property {string} [prefix] the installation's nats.prefix
 * @property {number} [timeout] time limit for a call that names none, in ms (30,000)
 * @property {number} [attemptTimeout] time limit for each attempt of a publish (5,000) or a
 *   token request (30,000, which should be longer than the workers' tokens.timeout), in ms
 * @property {boolean} [sealConnects] seal connects, so that only workers can read them
 * @property {boolean} [sealReplies] have token replies sealed to a key that stays in memory
 * @property {string} [apiPrefix] of the JetStream API, where another account imports it ("$JS.API")
 * @property {(err: Error) => void} [onError] gets the errors from which the client recovers by itself
 * @property {() => number} [now] the clock by which keys grow old (Date.now)
 */

/**
 * @typedef {object} Call
 * @property {number} [timeout] time limit for the call, with all its attempts, in ms
 * @property {AbortSignal} [signal] ends the call; it then throws the signal's reason
 */

/**
 * @typedef {Omit<import("../types/messages.js").Connected, "connectedAt" | "payload"> & {
 *   connectedAt: Date | string,
 *   payload: import("../types/messages.js").Connected["payload"] | import("../types/messages.js").ConnectedAccessTokenPayload |
 *     import("../types/messages.js").ConnectedDelayedAuthPayload | string,
 * }} Connected connectedAt is when the tokens were obtained: keep it if you publish the event
 *   again. payload is Mesh Link's LinkPayload, unchanged, as an object or as JSON text.
 */

/**
 * @typedef {Omit<import("../types/messages.js").Disconnected, "disconnectedAt"> & { disconnectedAt: Date | string }} Disconnected
 */

/**
 * @typedef {{ specversion: "1.0", id: string, source: string, type: "integration.rejected", time: string, data: import("../types/messages.js").Rejected }} RejectedEvent
 */

const idHeader = "NATS/1.0\r\nNats-Msg-Id: \r\n\r\n".length + 36; // bytes, with a UUID: NATS counts them, too
const publishAttempt = 5_000; // ms
const requestAttempt = 30_000;
const tooLarge = 10_054; // JetStream: message size exceeds maximum allowed

/** A client of one installation, on a connection that the caller closes. */
export class Client {
  #nc;
  #js;
  #subjects;
  #options;
  #keys;
  /** @type {ReturnType<typeof replyKey> | undefined} */
  #replyKey;

  /**
   * Give the connection an inbox prefix of its own (inboxPrefix): token replies hold tokens.
   *
   * @param {NatsConnection} nc
   * @param {Options} [options]
   */
  constructor(nc, options = {}) {
    const { prefix = "", apiPrefix = "$JS.API", onError = () => {}, now = Date.now } = options;
    this.#options = { timeout: requestAttempt, ...options, apiPrefix, onError };
    this.#nc = nc;
    this.#js = jetstream(nc, { apiPrefix });
    this.#subjects = new Subjects(prefix);
    this.#keys = new WorkerKeys(now, onError);
  }

  /**
   * Publishes a connect. When it returns, JetStream has stored it.
   *
   * @param {Connected} connect
   * @param {Call} [call]
   */
  async publishConnected(connect, call) {
    let body = connectedBody(connect);
    const end = performance.now() + this.#timeout(call);
    if (this.#options.sealConnects) body = await seal(body, await this.#keys.current((once) => this.#askForKeys(once, call)));
    await this.#publish("integration.connected", body, { ...call, timeout: Math.max(end - performance.now(), 1) });
  }

  /**
   * Publishes a disconnect of one broker or account of a user, or of everything.
   *
   * @param {Disconnected} disconnect
   * @param {Call} [call]
   */
  async publishDisconnected(disconnect, call) {
    await this.#publish("integration.disconnected", disconnectedBody(disconnect), call);
  }

  /**
   * Requests the current tokens of a user. It retries while workers are busy or there is
   * none, and not before the time that a worker asked for. A refusal is a RefusedError.
   *
   * @param {TokenRequest} request
   * @param {Call} [call]
   * @returns {Promise<TokenReply>}
   */
  async tokens(request, call) {
    checkUser("token.get", request.userId);
    if (request.sealTo) throw new InvalidError("token.get", "sealTo: a key that the client does not have; use its option sealReplies");
    if (this.#options.sealReplies) this.#replyKey ??= replyKey();
    const key = await this.#replyKey;
    const body = JSON.stringify({ ...request, sealTo: key?.sealTo });
    const reply = await this.#ask(this.#subjects.of("token.get", request.userId), body, requestAttempt, isPassing, call);
    const text = key ? await open(reply, key.privateKey) : reply;
    const opened = parse("token.get reply", text);
    if (!isObject(opened) || !Array.isArray(opened.accessTokens)) throw new InvalidError("token.get reply", "no accessTokens");
    return /** @type {TokenReply} */ (opened);
  }

  /**
   * Sends the code that a grant's refresh waits for. It does not retry, because the
   * institution may have received the code: after "busy" request tokens before you try again.
   *
   * @param {MFARequest} request
   * @param {Call} [call]
   * @returns {Promise<MFAReply>}
   */
  async completeMFA(request, call) {
    checkUser("token.mfa", request.userId);
    return parse("token.mfa reply", await this.#ask(this.#subjects.of("token.mfa", request.userId), JSON.stringify(request), requestAttempt, () => false, call));
  }

  /**
   * Calls handle for lifecycle events, one at a time, until the signal is aborted; then it
   * returns. Call it several times for concurrency.
   *
   * It receives from all streams of the installation, and within a minute from those that
   * come later. The events of a user are in one stream. Between streams there is no order.
   * At the start it fails if it may not receive from one of them; later on, and for a stream
   * that is missing, it tells onError and tries again.
   *
   * With a durable, an event is acknowledged when handle returns. After an error it comes
   * again, with growing delays (1 second to 1 minute). A consumer that exists is never
   * changed: with other settings the error is a DurableError. One that is lost meanwhile is
   * created again and continues where it was, perhaps with some events once more, also without
   * a durable. Without one an error of handle ends the subscription.
   *
   * @param {import("./subscribe.js").Subscription} subscription
   * @param {(event: import("./subscribe.js").LifecycleEvent) => unknown} handle an event may come more than once, with the same id
   * @param {{ signal?: AbortSignal }} [call]
   */
  async subscribe(subscription, handle, call = {}) {
    const jsm = await jetstreamManager(this.#nc, { checkAPI: false, apiPrefix: this.#options.apiPrefix });
    const { apiPrefix, onError } = this.#options;
    await subscribe({ nc: this.#nc, js: this.#js, jsm, apiPrefix, subjects: this.#subjects, onError }, subscription, handle, call.signal);
  }

  /**
   * Calls handle for every connect of the users that changed nothing (of all users for none)
   * until the signal is aborted. It hears no earlier events.
   *
   * @param {string[]} users
   * @param {(event: RejectedEvent) => unknown} handle
   * @param {{ signal?: AbortSignal }} [call]
   */
  async rejections(users, handle, { signal } = {}) {
    for (const user of users) checkUser("integration.rejected", user);
    signal?.throwIfAborted();
    const name = "integration.rejected";
    const subjects = users.length === 0 ? [this.#subjects.all(name)] : users.map((user) => this.#subjects.of(name, user));
    const subs = subjects.map((subject) => this.#nc.subscribe(subject));
    const end = () => subs.forEach((sub) => sub.unsubscribe());
    signal?.addEventListener("abort", end, { once: true });
    try {
      await Promise.all(
        subs.map(async (sub) => {
          for await (const msg of sub) {
            const event = this.#rejected(msg);
            if (event) await handle(event);
          }
        }),
      );
    } finally {
      end();
      signal?.removeEventListener("abort", end);
    }
  }

  /** @param {Msg} msg @returns {RejectedEvent | undefined} */
  #rejected(msg) {
    try {
      const event = parse("integration.rejected", msg.string());
      const user = isObject(event) && isObject(event.data) ? event.data.userId : undefined;
      if (typeof user !== "string" || msg.subject !== this.#subjects.of("integration.rejected", user)) {
        throw new InvalidError("integration.rejected", "its subject is that of another user");
      }
      return /** @type {RejectedEvent} */ (event);
    } catch (err) {
      this.#options.onError(/** @type {Error} */ (err));
      return undefined;
    }
  }

  /** @param {Call | undefined} call */
  #timeout(call) {
    return call?.timeout ?? this.#options.timeout;
  }

  /** All attempts have one id, so that the message is stored once. It is random: JetStream
   * drops a message with a known id, so another publisher must not guess it.
   *
   * @param {string} name @param {string} body @param {Call | undefined} call */
  async #publish(name, body, call) {
    const data = new TextEncoder().encode(body);
    if (data.length + idHeader > (this.#nc.info?.max_payload ?? Infinity)) throw new TooLargeError();
    const msgID = randomUUID();
    const how = { timeout: this.#timeout(call), limit: this.#options.attemptTimeout ?? publishAttempt, signal: call?.signal };
    const transient = (/** @type {any} */ err) => !isFinal(err) && err.code !== tooLarge;
    try {
      await retry({ ...how, transient }, (timeout) => this.#js.publish(this.#subjects.of(name), data, { msgID, timeout }));
    } catch (err) {
      throw /** @type {any} */ (err)?.code === tooLarge ? new TooLargeError() : err;
    }
  }

  /** @param {boolean} once @param {Call | undefined} call */
  #askForKeys(once, call) {
    return this.#ask(this.#subjects.of("token.keys"), "", publishAttempt, once ? () => false : isPassing, call);
  }

  /**
   * Sends a request and returns the reply's text.
   *
   * @param {string} subject @param {string} body @param {number} limit
   * @param {(err: any) => boolean} transient @param {Call | undefined} call
   */
  async #ask(subject, body, limit, transient, call) {
    const how = { timeout: this.#timeout(call), limit: this.#options.attemptTimeout ?? limit, signal: call?.signal, transient };
    try {
      return await retry(how, async (timeout) => {
        const reply = await this.#nc.request(subject, body, { timeout });
        const code = reply.headers?.get("Nats-Service-Error");
        if (code) throw new RefusedError(code, saidIn(reply));
        return reply.string();
      });
    } catch (err) {
      throw isNoResponders(err) ? new NoWorkerError() : err;
    }
  }
}

/** What a refusal says beside its code, which alone is enough. @param {Msg} reply */
function saidIn(reply) {
  try {
    const said = reply.json();
    return isObject(said) ? said : {};
  } catch {
    return {};
  }
}

/** Whether a retry of a request may succeed. @param {any} err */
const isPassing = (err) => (err instanceof RefusedError ? err.code === "busy" : isNoResponders(err) || isTimeout(err));

/**
 * The tokens of some accounts in a reply, as a request names them in refused when they did
 * not work.
 *
 * @param {TokenReply} reply
 * @param {...string} accountIds
 */
export function refusedIn(reply, ...accountIds) {
  return reply.expiries
    .filter((e) => accountIds.includes(e.accountId))
    .map(({ grantId, version }) => ({ grantId, version: version ?? 0 }));
}
