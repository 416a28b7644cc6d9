// Publishes a connect, sealed. Standard input is what Mesh Link's
// onIntegrationConnected gave to the page:
//
//   node publish.js USER CONNECTED_AT < payload.json
import { text } from 'node:stream/consumers'
import { jetstream } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import { WorkerKeys, seal } from './seal.js'

const [userId, connectedAt] = process.argv.slice(2)
const payload = JSON.parse(await text(process.stdin))

const nc = await connect({ servers: process.env.NATS_URL, inboxPrefix: '_INBOX_publisher' })
try {
  const keys = new WorkerKeys(nc)
  const body = JSON.stringify({ userId, connectedAt, payload })
  const ack = await jetstream(nc).publish('integration.connected', await seal(body, await keys.current()))
  console.log(`stored as ${ack.seq}`) // JetStream has it; in every other case publish has thrown
} finally {
  await nc.close()
}
