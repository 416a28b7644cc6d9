// JWE with ECDH-ES+A256KW and A256GCM on P-256, by the library jose.
import { CompactEncrypt, compactDecrypt, exportJWK, generateKeyPair, importJWK } from "jose";
import { isObject, parse } from "./check.js";
import { InvalidError } from "./errors.js";

const alg = "ECDH-ES+A256KW";
const enc = "A256GCM";

const keyLife = 3_600_000; // a new key comes about once a month
const keyOverlap = 86_400_000; // workers open what is sealed to a replaced key for longer
const keyPause = 60_000; // between requests while there is a key that can still be used

/** The key that connects are sealed to. */
export class WorkerKeys {
  /** @type {any} */
  #key;
  #fetchedAt = -Infinity;
  #nextAt = -Infinity;
  #now;
  #onError;

  /** @param {() => number} now @param {(err: Error) => void} onError */
  constructor(now, onError) {
    this.#now = now;
    this.#onError = onError;
  }

  /**
   * The key to seal to. ask requests the key set; once is true while there is a key to
   * fall back on.
   *
   * @param {(once: boolean) => Promise<string>} ask
   */
  async current(ask) {
    const now = this.#now();
    const usable = now < this.#fetchedAt + keyLife + keyOverlap;
    if (usable && now < this.#nextAt) return this.#key;
    this.#nextAt = now + keyPause; // one asks, and others use the key meanwhile
    try {
      const { keys } = parse("token.keys", await ask(usable));
      const key = Array.isArray(keys) ? keys.find((key) => key?.kty === "EC" && key.crv === "P-256") : undefined;
      if (!key) throw new InvalidError("token.keys", "no key on P-256");
      this.#key = key;
      this.#fetchedAt = this.#now();
      this.#nextAt = this.#fetchedAt + keyLife;
    } catch (err) {
      if (!usable) throw err;
      this.#onError(/** @type {Error} */ (err));
    }
    return this.#key;
  }
}

/** Seals a body. @param {string} body @param {any} key */
export async function seal(body, key) {
  const sealed = await new CompactEncrypt(new TextEncoder().encode(body))
    .setProtectedHeader({ alg, enc, kid: key.kid })
    .encrypt(await importJWK(key, alg));
  return JSON.stringify({ sealed });
}

/** A key of this process alone, for replies. */
export async function replyKey() {
  const { publicKey, privateKey } = await generateKeyPair(alg, { crv: "P-256" });
  return { sealTo: await exportJWK(publicKey), privateKey };
}

/** Opens a sealed reply. @param {string} body @param {import("jose").CryptoKey} privateKey @returns {Promise<string>} */
export async function open(body, privateKey) {
  const reply = parse("token.get reply", body);
  if (!isObject(reply) || typeof reply.sealed !== "string") throw new InvalidError("token.get reply", "not sealed: others may have read or written it");
  try {
    const { plaintext } = await compactDecrypt(reply.sealed, privateKey, { keyManagementAlgorithms: [alg], contentEncryptionAlgorithms: [enc] });
    return new TextDecoder().decode(plaintext);
  } catch {
    throw new InvalidError("token.get reply", "sealed: it does not open: changed, or sealed to another key");
  }
}
