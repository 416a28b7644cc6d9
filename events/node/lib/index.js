export { Client, refusedIn } from "./client.js";
export { DurableError, InvalidError, NoWorkerError, RefusedError, TooLargeError } from "./errors.js";
export { lifecycleKinds, subjectToken } from "./subjects.js";
/** @typedef {import("./client.js").Options} Options */
/** @typedef {import("./client.js").Call} Call */
/** @typedef {import("./client.js").Connected} Connected */
/** @typedef {import("./client.js").Disconnected} Disconnected */
/** @typedef {import("./client.js").RejectedEvent} RejectedEvent */
/** @typedef {import("./subscribe.js").Subscription} Subscription */
/** @typedef {import("./subscribe.js").LifecycleEvent} LifecycleEvent */
/** @typedef {import("../types/messages.js").TokenRequest} TokenRequest */
/** @typedef {import("../types/messages.js").TokenReply} TokenReply */
/** @typedef {import("../types/messages.js").MFARequest} MFARequest */
/** @typedef {import("../types/messages.js").MFAReply} MFAReply */
