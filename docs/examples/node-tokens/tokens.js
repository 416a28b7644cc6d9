import { setTimeout as pause } from "node:timers/promises";
import { NoRespondersError, RequestError, TimeoutError } from "@nats-io/transport-node";

const prefix = process.env.LATCHKEY_PREFIX ? process.env.LATCHKEY_PREFIX + "." : "";
const reconnectCodes = ["unknown_user", "must_act", "expired"];
const firstPause = 200; // ms
const maxPause = 5_000;

/** A request that a worker refused; `reconnect` says that the user has to connect again. */
export class Refused extends Error {
  constructor(code) {
    super(`refused: ${code}`);
    this.code = code;
    this.reconnect = reconnectCodes.includes(code);
  }
}

/** The tokens of some accounts in a reply, as currentTokens takes them in refused. */
export function refusedIn(reply, ...accountIds) {
  return reply.expiries.filter((e) => accountIds.includes(e.accountId)).map(({ grantId, version }) => ({ grantId, version }));
}

/** The user as one token of a subject. encodeURIComponent leaves the dot and others alone. */
export function subjectToken(userId) {
  return Array.from(new TextEncoder().encode(userId), (byte) => {
    const c = String.fromCharCode(byte);
    return /[A-Za-z0-9_-]/.test(c) ? c : "%" + byte.toString(16).toUpperCase().padStart(2, "0");
  }).join("");
}

/**
 * The current tokens of a user, as in docs/tokens.md, perhaps narrowed to a
 * brokerType or an accountId. Tokens of an earlier reply that were refused where
 * they were used are named in narrowed.refused, as refusedIn has them. While workers are busy or
 * none is there it asks again, until patience (ms) ends.
 */
export async function currentTokens(nc, userId, narrowed = {}, patience = 30_000) {
  const end = Date.now() + patience;
  const subject = `${prefix}token.get.${subjectToken(userId)}`;
  const body = JSON.stringify({ userId, ...narrowed });
  for (let wait = firstPause; ; wait = Math.min(2 * wait, maxPause)) {
    try {
      const reply = await nc.request(subject, body, { timeout: Math.max(end - Date.now(), 1) });
      const code = reply.headers?.get("Nats-Service-Error");
      if (code) throw new Refused(code);
      return reply.json();
    } catch (err) {
      const noWorker = err instanceof NoRespondersError || (err instanceof RequestError && err.isNoResponders());
      const passing = err instanceof Refused ? err.code === "busy" : noWorker || err instanceof TimeoutError;
      if (!passing || Date.now() + wait >= end) throw err;
      await pause(wait);
    }
  }
}
