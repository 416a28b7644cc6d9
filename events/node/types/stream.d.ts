/** A stream with a durable consumer. */
export class Durable extends Stream {
    #private;
}
/** A stream with an ordered consumer. */
export class Ordered extends Stream {
}
export type Running = import("./subscribe.js").Running;
export type JsMsg = import("@nats-io/jetstream").JsMsg;
/** What a subscription receives from one stream. */
declare class Stream {
    /** @param {Running} running @param {number} n @param {number} number */
    constructor(running: Running, n: number, number: number);
    /** Every event up to this sequence of the stream was acknowledged, or handled, at told, a time of the server. */
    done: number;
    /** @type {number | undefined} */
    told: number | undefined;
    /** @type {Promise<void>} */
    begun: Promise<void>;
    running: import("./subscribe.js").Running;
    name: string;
    buffer: number;
    /** @param {(since: string) => void} _begun @returns {Promise<void>} */
    receive(_begun: (since: string) => void): Promise<void>;
    /**
     * Receives until the subscription ends, or the stream is gone and no longer one of the
     * installation's.
     *
     * @param {boolean} must whether it fails if it can't begin
     */
    run(must: boolean): Promise<void>;
    /** Where a new consumer begins: where a lost one was, if that is known. An event comes rather twice than never. */
    start(): Promise<{
        deliver_policy: "all";
        opt_start_time?: undefined;
        opt_start_seq?: undefined;
    } | {
        deliver_policy: "new";
        opt_start_time?: undefined;
        opt_start_seq?: undefined;
    } | {
        deliver_policy: "by_start_time";
        opt_start_time: string;
        opt_start_seq?: undefined;
    } | {
        deliver_policy: "by_start_sequence";
        opt_start_seq: number;
        opt_start_time?: undefined;
    }>;
    #private;
}
export {};
