// Asks for the tokens of a user by a request whose reply nobody else can read,
// and shows which there are:
//
//   node tokens.js USER
import { Client } from '@latchkey/client'
import { connect } from '@nats-io/transport-node'

const [userId] = process.argv.slice(2)

const nc = await connect({ servers: process.env.NATS_URL, inboxPrefix: '_INBOX_portfolio' })
try {
  const latchkey = new Client(nc, { prefix: process.env.LATCHKEY_PREFIX, sealReplies: true })
  const { accessTokens } = await latchkey.tokens({ userId })
  for (const { accountId, brokerName, accessToken } of accessTokens) {
    console.log(`${accountId} at ${brokerName}: a token of ${accessToken.length} characters`)
  }
} finally {
  await nc.close()
}
