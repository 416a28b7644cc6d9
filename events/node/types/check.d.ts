/** @param {string} message @param {unknown} userId */
export function checkUser(message: string, userId: unknown): void;
/** The time as it is written. @param {string} message @param {string} field @param {unknown} at */
export function timeOf(message: string, field: string, at: unknown): string;
/** Parses JSON without quoting it in an error. @param {string} message @param {string} text @returns {any} */
export function parse(message: string, text: string): any;
/**
 * The body of integration.connected. A payload that is text goes into it verbatim.
 *
 * @param {import("./client.js").Connected} connect
 */
export function connectedBody({ userId, connectedAt, payload, labels, metadata }: import("./client.js").Connected): string;
/**
 * The body of integration.disconnected, which never covers more than was said.
 *
 * @param {import("./client.js").Disconnected} disconnect
 */
export function disconnectedBody(disconnect: import("./client.js").Disconnected): string;
export function isObject(value: unknown): value is Record<string, any>;
