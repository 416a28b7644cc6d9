import { setTimeout as sleep } from "node:timers/promises";
import { isTimeout, RefusedError } from "./errors.js";

const firstPause = 100; // ms
const maxPause = 5_000;

/** The pauses between attempts: growing, with some chance. */
export function* pauses() {
  for (let pause = firstPause; ; pause = Math.min(2 * pause, maxPause)) yield pause * (0.8 + 0.4 * Math.random());
}

/**
 * Repeats attempt until it succeeds, fails for good, or time is over. The error is then the
 * last that says more than that time is over.
 *
 * @template T
 * @param {{timeout: number, limit: number, signal?: AbortSignal, transient: (err: any) => boolean}} how
 * @param {(timeout: number) => Promise<T>} attempt
 * @returns {Promise<T>}
 */
export async function retry({ timeout, limit, signal, transient }, attempt) {
  const end = performance.now() + timeout;
  let last;
  for (const pause of pauses()) {
    signal?.throwIfAborted();
    const left = Math.max(end - performance.now(), 1);
    try {
      return await unlessAborted(signal, attempt(Math.min(left, limit)));
    } catch (err) {
      if (signal?.aborted) throw signal.reason;
      const over = left < limit && isTimeout(err);
      if (!over || last === undefined) last = err;
      const wait = err instanceof RefusedError && err.retryAfterSeconds > 0 ? err.retryAfterSeconds * 1000 : pause;
      if (!transient(err) || performance.now() + wait >= end) throw last;
      await sleep(wait, undefined, { signal }).catch(() => {}); // an aborted one leaves no timer behind
    }
  }
  throw last; // never: pauses do not end
}

/**
 * The promise, or the signal's reason as soon as it is aborted.
 *
 * @template T
 * @param {AbortSignal | undefined} signal
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export function unlessAborted(signal, promise) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
