// Publishes a connect, sealed. Standard input is what Mesh Link's
// onIntegrationConnected gave to the page, and CONNECTED_AT when the page got it
// (RFC 3339), the same if you repeat the command:
//
//   node publish.js USER CONNECTED_AT < payload.json
import { text } from 'node:stream/consumers'
import { Client } from '@latchkey/client'
import { connect } from '@nats-io/transport-node'

const [userId, connectedAt] = process.argv.slice(2)

const nc = await connect({ servers: process.env.NATS_URL, inboxPrefix: '_INBOX_publisher' })
try {
  const latchkey = new Client(nc, { prefix: process.env.LATCHKEY_PREFIX, sealConnects: true })
  await latchkey.publishConnected({ userId, connectedAt, payload: await text(process.stdin) })
  console.log('stored') // JetStream has it; in every other case publishConnected has thrown
} finally {
  await nc.close()
}
