/** The kinds of lifecycle events. */
export const lifecycleKinds = ["token.stored", "token.refreshed", "token.expiring", "token.expired", "token.revoked", "token.removal"];

/** The user as one token of a subject. encodeURIComponent leaves the dot and others alone. @param {string} userId */
export function subjectToken(userId) {
  return Array.from(new TextEncoder().encode(userId), (byte) => {
    const c = String.fromCharCode(byte);
    return /[A-Za-z0-9_-]/.test(c) ? c : "%" + byte.toString(16).toUpperCase().padStart(2, "0");
  }).join("");
}

/** Subjects and streams of an installation. */
export class Subjects {
  #prefix;

  /** @param {string} prefix */
  constructor(prefix) {
    this.#prefix = prefix;
  }

  /** @param {string} name @param {string} [userId] without one of all users, where there are users */
  of(name, userId) {
    const subject = this.#prefix ? `${this.#prefix}.${name}` : name;
    return userId === undefined ? subject : `${subject}.${subjectToken(userId)}`;
  }

  /** @param {string} name */
  all(name) {
    return `${this.of(name)}.*`;
  }

  /** One of the streams of lifecycle events. @param {number} [n] */
  lifecycleStream(n = 0) {
    const name = n === 0 ? "LATCHKEY_LIFECYCLE" : `LATCHKEY_LIFECYCLE_${n}`;
    return this.#prefix ? `${this.#prefix.toUpperCase()}_${name}` : name;
  }
}
