/**
 * The tokens of some accounts in a reply, as a request names them in refused when they did
 * not work.
 *
 * @param {TokenReply} reply
 * @param {...string} accountIds
 */
export function refusedIn(reply: TokenReply, ...accountIds: string[]): {
    grantId: string;
    version: number;
}[];
/** A client of one installation, on a connection that the caller closes. */
export class Client {
    /**
     * Give the connection an inbox prefix of its own (inboxPrefix): token replies hold tokens.
     *
     * @param {NatsConnection} nc
     * @param {Options} [options]
     */
    constructor(nc: NatsConnection, options?: Options);
    /**
     * Publishes a connect. When it returns, JetStream has stored it.
     *
     * @param {Connected} connect
     * @param {Call} [call]
     */
    publishConnected(connect: Connected, call?: Call): Promise<void>;
    /**
     * Publishes a disconnect of one broker or account of a user, or of everything.
     *
     * @param {Disconnected} disconnect
     * @param {Call} [call]
     */
    publishDisconnected(disconnect: Disconnected, call?: Call): Promise<void>;
    /**
     * Requests the current tokens of a user. It retries while workers are busy or there is
     * none, and not before the time that a worker asked for. A refusal is a RefusedError.
     *
     * @param {TokenRequest} request
     * @param {Call} [call]
     * @returns {Promise<TokenReply>}
     */
    tokens(request: TokenRequest, call?: Call): Promise<TokenReply>;
    /**
     * Sends the code that a grant's refresh waits for. It does not retry, because the
     * institution may have received the code: after "busy" request tokens before you try again.
     *
     * @param {MFARequest} request
     * @param {Call} [call]
     * @returns {Promise<MFAReply>}
     */
    completeMFA(request: MFARequest, call?: Call): Promise<MFAReply>;
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
    subscribe(subscription: import("./subscribe.js").Subscription, handle: (event: import("./subscribe.js").LifecycleEvent) => unknown, call?: {
        signal?: AbortSignal;
    }): Promise<void>;
    /**
     * Calls handle for every connect of the users that changed nothing (of all users for none)
     * until the signal is aborted. It hears no earlier events.
     *
     * @param {string[]} users
     * @param {(event: RejectedEvent) => unknown} handle
     * @param {{ signal?: AbortSignal }} [call]
     */
    rejections(users: string[], handle: (event: RejectedEvent) => unknown, { signal }?: {
        signal?: AbortSignal;
    }): Promise<void>;
    #private;
}
export type NatsConnection = import("@nats-io/nats-core").NatsConnection;
export type Msg = import("@nats-io/nats-core").Msg;
export type TokenRequest = import("../types/messages.js").TokenRequest;
export type TokenReply = import("../types/messages.js").TokenReply;
export type MFARequest = import("../types/messages.js").MFARequest;
export type MFAReply = import("../types/messages.js").MFAReply;
export type Options = {
    /**
     * the installation's nats.prefix
     */
    prefix?: string | undefined;
    /**
     * time limit for a call that names none, in ms (30,000)
     */
    timeout?: number | undefined;
    /**
     * time limit for each attempt of a publish (5,000) or a
     * token request (30,000, which should be longer than the workers' tokens.timeout), in ms
     */
    attemptTimeout?: number | undefined;
    /**
     * seal connects, so that only workers can read them
     */
    sealConnects?: boolean | undefined;
    /**
     * have token replies sealed to a key that stays in memory
     */
    sealReplies?: boolean | undefined;
    /**
     * of the JetStream API, where another account imports it ("$JS.API")
     */
    apiPrefix?: string | undefined;
    /**
     * gets the errors from which the client recovers by itself
     */
    onError?: ((err: Error) => void) | undefined;
    /**
     * the clock by which keys grow old (Date.now)
     */
    now?: (() => number) | undefined;
};
export type Call = {
    /**
     * time limit for the call, with all its attempts, in ms
     */
    timeout?: number | undefined;
    /**
     * ends the call; it then throws the signal's reason
     */
    signal?: AbortSignal | undefined;
};
/**
 * connectedAt is when the tokens were obtained: keep it if you publish the event
 *   again. payload is Mesh Link's LinkPayload, unchanged, as an object or as JSON text.
 */
export type Connected = Omit<import("../types/messages.js").Connected, "connectedAt" | "payload"> & {
    connectedAt: Date | string;
    payload: import("../types/messages.js").Connected["payload"] | import("../types/messages.js").ConnectedAccessTokenPayload | import("../types/messages.js").ConnectedDelayedAuthPayload | string;
};
export type Disconnected = Omit<import("../types/messages.js").Disconnected, "disconnectedAt"> & {
    disconnectedAt: Date | string;
};
export type RejectedEvent = {
    specversion: "1.0";
    id: string;
    source: string;
    type: "integration.rejected";
    time: string;
    data: import("../types/messages.js").Rejected;
};
