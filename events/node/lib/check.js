import { InvalidError } from "./errors.js";

const visible = /^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+$/u;
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

/** @param {string} message @param {unknown} userId */
export function checkUser(message, userId) {
  if (typeof userId !== "string" || !userId.isWellFormed() || [...userId].length > 300 || !visible.test(userId)) {
    throw new InvalidError(message, "userId: must be text of 1 to 300 characters, none of them control or formatting characters");
  }
}

/** The time as it is written. @param {string} message @param {string} field @param {unknown} at */
export function timeOf(message, field, at) {
  if (at instanceof Date && !Number.isNaN(at.getTime())) return at.toISOString();
  if (typeof at === "string" && rfc3339.test(at) && !Number.isNaN(Date.parse(at))) return at;
  throw new InvalidError(message, `${field}: must be a Date or a time as in RFC 3339; set it, and keep it when you publish the event again`);
}

/** Parses JSON without quoting it in an error. @param {string} message @param {string} text @returns {any} */
export function parse(message, text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new InvalidError(message, "not well-formed JSON");
  }
}

/** @param {unknown} value @returns {value is Record<string, any>} */
export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const forms = ["accessToken", "delayedAuth", "accountTokens", "refreshToken"];

/**
 * The body of integration.connected. A payload that is text goes into it verbatim.
 *
 * @param {import("./client.js").Connected} connect
 */
export function connectedBody({ userId, connectedAt, payload, labels, metadata }) {
  const message = "integration.connected";
  checkUser(message, userId);
  const at = timeOf(message, "connectedAt", connectedAt);
  const text = typeof payload === "string" ? payload : (JSON.stringify(payload) ?? "null");
  const link = parse(message, text);
  if (!isObject(link) || !forms.some((form) => link[form] !== undefined)) {
    throw new InvalidError(message, `payload: needs one of ${forms.join(", ")}`);
  }
  return `${JSON.stringify({ userId, connectedAt: at, labels, metadata }).slice(0, -1)},"payload":${text}}`;
}

/**
 * The body of integration.disconnected, which never covers more than was said.
 *
 * @param {import("./client.js").Disconnected} disconnect
 */
export function disconnectedBody(disconnect) {
  const message = "integration.disconnected";
  const { userId, brokerType, accountId, everything, disconnectedAt } = disconnect;
  checkUser(message, userId);
  for (const field of Object.keys(disconnect)) {
    if (!["userId", "brokerType", "accountId", "everything", "disconnectedAt"].includes(field)) throw new InvalidError(message, "a field that it does not have");
  }
  const narrowed = Object.entries({ brokerType, accountId }).filter(([, value]) => value !== undefined);
  for (const [field, value] of narrowed) {
    if (typeof value !== "string" || !visible.test(value)) throw new InvalidError(message, `${field}: must be text, not empty`);
  }
  if (everything !== undefined && typeof everything !== "boolean") throw new InvalidError(message, "everything: must be true or false");
  if ((everything === true) === narrowed.length > 0) {
    throw new InvalidError(message, "needs either brokerType, accountId or both, or everything: true");
  }
  return JSON.stringify({ userId, brokerType, accountId, everything, disconnectedAt: timeOf(message, "disconnectedAt", disconnectedAt) });
}
