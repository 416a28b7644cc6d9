// Asks for the tokens of a user by a request whose reply nobody else can read,
// and shows which there are:
//
//   node tokens.js USER
import { connect } from '@nats-io/transport-node'
import { open, replyKey } from './seal.js'

const [userId] = process.argv.slice(2)

// The user id as one subject token, see docs/tokens.md.
const subjectToken = (id) =>
  Array.from(new TextEncoder().encode(id), (byte) => {
    const c = String.fromCharCode(byte)
    return /[A-Za-z0-9_-]/.test(c) ? c : '%' + byte.toString(16).toUpperCase().padStart(2, '0')
  }).join('')

const nc = await connect({ servers: process.env.NATS_URL, inboxPrefix: '_INBOX_portfolio' })
try {
  const { sealTo, privateKey } = await replyKey() // once a process; any number of requests
  const request = JSON.stringify({ userId, sealTo })
  const reply = await nc.request(`token.get.${subjectToken(userId)}`, request, { timeout: 30_000 })
  const code = reply.headers?.get('Nats-Service-Error') // refusals are not sealed
  if (code) throw new Error(`no tokens: ${code}`)
  const { accessTokens } = await open(reply, privateKey)
  for (const { accountId, brokerName, accessToken } of accessTokens) {
    console.log(`${accountId} at ${brokerName}: a token of ${accessToken.length} characters`)
  }
} finally {
  await nc.close()
}
