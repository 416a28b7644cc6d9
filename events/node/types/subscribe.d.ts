/** @param {Nats} nats @param {Subscription} s @param {Handle} handle @param {AbortSignal | undefined} signal */
export function subscribe(nats: Nats, s: Subscription, handle: Handle, signal: AbortSignal | undefined): Promise<void>;
export type Subscription = {
    /**
     * name of a durable consumer: subscribers with the same name
     * share its events and continue where it was. They must have the same kinds, users and
     * ackWait. Without one: an ordered consumer for this subscription.
     */
    durable?: string | undefined;
    /**
     * some of lifecycleKinds; without: all
     */
    kinds?: string[] | undefined;
    /**
     * narrows the subscription to some users; without: all
     */
    users?: string[] | undefined;
    /**
     * a new consumer starts with the next event, not with the
     * oldest in the stream. It makes no difference to a consumer that exists. On a stream that
     * comes later it starts with what has happened since the subscription began.
     */
    newOnly?: boolean | undefined;
    /**
     * time without a sign of progress after which NATS delivers an
     * event again, in ms (30,000). handle may take longer: the client signals progress.
     */
    ackWait?: number | undefined;
};
export type LifecycleEvent = {
    specversion: "1.0";
    id: string;
    source: string;
    type: "token.stored" | "token.refreshed" | "token.expiring" | "token.expired" | "token.revoked" | "token.removal";
    subject: string;
    time: string;
    data: import("../types/messages.js").Lifecycle;
};
export type Nats = {
    nc: import("@nats-io/nats-core").NatsConnection;
    apiPrefix: string;
    js: import("@nats-io/jetstream").JetStreamClient;
    jsm: import("@nats-io/jetstream").JetStreamManager;
    subjects: import("./subjects.js").Subjects;
    onError: (err: Error) => void;
    wait?: (ms: number, signal: AbortSignal) => Promise<unknown>;
};
export type Handle = (event: LifecycleEvent) => unknown;
/**
 * how many there are, at a time of the server
 */
export type Streams = {
    number: number;
    at: string;
};
/**
 * A running subscription, as its streams see it.
 */
export type Running = {
    nats: Nats;
    s: Subscription;
    filters: string[];
    signal: AbortSignal;
    /**
     * when it began, by the clock of the server; that of a durable began
     * when its consumer was created on the first stream
     */
    since: string;
    eventIn: (msg: import("@nats-io/jetstream").JsMsg) => LifecycleEvent | undefined;
    /**
     * waits for its turn
     */
    handle: (event: LifecycleEvent) => Promise<void>;
    streams: () => Promise<Streams>;
};
