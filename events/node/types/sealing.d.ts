/** Seals a body. @param {string} body @param {any} key */
export function seal(body: string, key: any): Promise<string>;
/** A key of this process alone, for replies. */
export function replyKey(): Promise<{
    sealTo: import("jose").JWK;
    privateKey: import("crypto").webcrypto.CryptoKey;
}>;
/** Opens a sealed reply. @param {string} body @param {import("jose").CryptoKey} privateKey @returns {Promise<string>} */
export function open(body: string, privateKey: import("jose").CryptoKey): Promise<string>;
/** The key that connects are sealed to. */
export class WorkerKeys {
    /** @param {() => number} now @param {(err: Error) => void} onError */
    constructor(now: () => number, onError: (err: Error) => void);
    /**
     * The key to seal to. ask requests the key set; once is true while there is a key to
     * fall back on.
     *
     * @param {(once: boolean) => Promise<string>} ask
     */
    current(ask: (once: boolean) => Promise<string>): Promise<any>;
    #private;
}
