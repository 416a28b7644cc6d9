/** A message that breaks its contract. It names fields and rules, never a value. */
export class InvalidError extends Error {
    /** @param {string} message @param {string} problem */
    constructor(message: string, problem: string);
    problem: string;
}
/** A worker's refusal of a request. */
export class RefusedError extends Error {
    /** @param {string} code @param {Record<string, any>} said */
    constructor(code: string, said: Record<string, any>);
    /** See docs/tokens.md for what to do. */
    code: string;
    /** The user must connect or authenticate again. */
    reconnect: boolean;
    /** With "busy": an earlier request would fail too. 0: not known. */
    retryAfterSeconds: number;
    /** The requested accounts, and why each has no token.
     * @type {NonNullable<import("../types/messages.js").TokenReply["unavailable"]>} */
    unavailable: NonNullable<import("../types/messages.js").TokenReply["unavailable"]>;
    /** The result for each of the request's refused tokens.
     * @type {NonNullable<import("../types/messages.js").TokenReply["refused"]>} */
    refused: NonNullable<import("../types/messages.js").TokenReply["refused"]>;
}
/** No worker answers. */
export class NoWorkerError extends Error {
    constructor();
}
/** The message is larger than NATS or the stream takes. */
export class TooLargeError extends Error {
    constructor();
}
/** The durable consumer exists with other settings than the subscription's. */
export class DurableError extends Error {
    /** @param {string} durable @param {string[]} differences */
    constructor(durable: string, differences: string[]);
    differences: string[];
}
export function isTimeout(err: any): boolean;
export function isNoResponders(err: any): any;
export function isRefused(err: any): boolean;
export function isFinal(err: any): boolean;
