/** A message that breaks its contract. It names fields and rules, never a value. */
export class InvalidError extends Error {
  name = "InvalidError";

  /** @param {string} message @param {string} problem */
  constructor(message, problem) {
    super(`invalid ${message}: ${problem}`);
    this.problem = problem;
  }
}

const reconnectCodes = ["unknown_user", "must_act", "expired"];

/** A worker's refusal of a request. */
export class RefusedError extends Error {
  name = "RefusedError";

  /** @param {string} code @param {Record<string, any>} said */
  constructor(code, said) {
    super(`refused: ${code}: ${said.message ?? ""}`);
    /** See docs/tokens.md for what to do. */
    this.code = code;
    /** The user must connect or authenticate again. */
    this.reconnect = reconnectCodes.includes(code);
    /** With "busy": an earlier request would fail too. 0: not known. */
    this.retryAfterSeconds = Math.min(Math.max(Number(said.retryAfterSeconds) || 0, 0), 86_400);
    /** The requested accounts, and why each has no token.
     * @type {NonNullable<import("../types/messages.js").TokenReply["unavailable"]>} */
    this.unavailable = said.unavailable ?? [];
    /** The result for each of the request's refused tokens.
     * @type {NonNullable<import("../types/messages.js").TokenReply["refused"]>} */
    this.refused = said.refused ?? [];
  }
}

/** No worker answers. */
export class NoWorkerError extends Error {
  name = "NoWorkerError";

  constructor() {
    super("no worker answers; is one running, with the same prefix?");
  }
}

/** The message is larger than NATS or the stream takes. */
export class TooLargeError extends Error {
  name = "TooLargeError";

  constructor() {
    super("larger than NATS takes");
  }
}

/** The durable consumer exists with other settings than the subscription's. */
export class DurableError extends Error {
  name = "DurableError";

  /** @param {string} durable @param {string[]} differences */
  constructor(durable, differences) {
    super(`the durable consumer has other settings: "${durable}" has ${differences.join("; ")}`);
    this.differences = differences;
  }
}

// By name, because a program may hold several copies of NATS's library.

/** @param {any} err */
export const isTimeout = (err) => err?.name === "TimeoutError";

/** @param {any} err */
export const isNoResponders = (err) => err?.name === "NoRespondersError" || (err?.name === "RequestError" && err.isNoResponders());

/** NATS denies a permission. @param {any} err @returns {boolean} */
export const isRefused = (err) => err?.name === "PermissionViolationError" || (err?.cause !== undefined && isRefused(err.cause));

/** @param {any} err @returns {boolean} */
export const isFinal = (err) =>
  ["ClosedConnectionError", "DrainingConnectionError", "PermissionViolationError", "InvalidSubjectError", "InvalidArgumentError"].includes(err?.name ?? "") ||
  (err?.cause !== undefined && isFinal(err.cause));
