// Sealing to the workers, and opening what they seal. All of it is JWE with
// ECDH-ES+A256KW and A256GCM on P-256; the library is jose.
import { CompactEncrypt, compactDecrypt, exportJWK, generateKeyPair, importJWK } from 'jose'

const alg = 'ECDH-ES+A256KW'
const enc = 'A256GCM'

/** Fetches the workers' keys, and again after an hour: a new one comes about once a month. */
export class WorkerKeys {
  #nc
  #key
  #fetchedAt = 0

  constructor(nc) {
    this.#nc = nc
  }

  /** The key to seal to: the first. When it can't be fetched now, the one at hand is good for a day. */
  async current() {
    const age = Date.now() - this.#fetchedAt
    if (age < 3_600_000) return this.#key
    try {
      const reply = await this.#nc.request('token.keys', '', { timeout: 30_000 })
      const code = reply.headers?.get('Nats-Service-Error')
      if (code) throw new Error(`no keys: ${code}`)
      const { keys } = reply.json()
      this.#key = keys.find((key) => key.kty === 'EC' && key.crv === 'P-256')
      this.#fetchedAt = Date.now()
    } catch (err) {
      if (!this.#key || age > 86_400_000) throw err
    }
    return this.#key
  }
}

/** Seals a body; the result is published in its place. */
export async function seal(body, key) {
  const jwe = await new CompactEncrypt(new TextEncoder().encode(body))
    .setProtectedHeader({ alg, enc, kid: key.kid })
    .encrypt(await importJWK(key, alg))
  return JSON.stringify({ sealed: jwe })
}

/** A key of this process's own: replies sealed to it open nowhere else. */
export async function replyKey() {
  const { publicKey, privateKey } = await generateKeyPair(alg, { crv: 'P-256' })
  return { sealTo: await exportJWK(publicKey), privateKey }
}

/** Opens a reply that was asked for with sealTo. */
export async function open(reply, privateKey) {
  const { sealed } = reply.json()
  if (!sealed) throw new Error('the reply is not sealed')
  const { plaintext } = await compactDecrypt(sealed, privateKey, {
    keyManagementAlgorithms: [alg],
    contentEncryptionAlgorithms: [enc]
  })
  return JSON.parse(new TextDecoder().decode(plaintext))
}
