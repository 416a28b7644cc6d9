/** The pauses between attempts: growing, with some chance. */
export function pauses(): Generator<number, void, unknown>;
/**
 * Repeats attempt until it succeeds, fails for good, or time is over. The error is then the
 * last that says more than that time is over.
 *
 * @template T
 * @param {{timeout: number, limit: number, signal?: AbortSignal, transient: (err: any) => boolean}} how
 * @param {(timeout: number) => Promise<T>} attempt
 * @returns {Promise<T>}
 */
export function retry<T>({ timeout, limit, signal, transient }: {
    timeout: number;
    limit: number;
    signal?: AbortSignal;
    transient: (err: any) => boolean;
}, attempt: (timeout: number) => Promise<T>): Promise<T>;
/**
 * The promise, or the signal's reason as soon as it is aborted.
 *
 * @template T
 * @param {AbortSignal | undefined} signal
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export function unlessAborted<T>(signal: AbortSignal | undefined, promise: Promise<T>): Promise<T>;
