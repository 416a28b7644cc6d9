import { FrontApi } from '@meshconnect/node-api'
import type { BrokerType, LinkPayload } from '@meshconnect/web-link-sdk'

function env(name: string): string {
  const value = process.env[name]
  if (!value) throw new Error(`${name} is not set`)
  return value
}

const baseURL = env('MESH_URL')
const headers = { 'X-Client-Id': env('MESH_CLIENT_ID'), 'X-Client-Secret': env('MESH_CLIENT_SECRET') }

/** Mesh's client, whose calls settle at any HTTP status. */
export const mesh = new FrontApi({ baseURL, headers, validateStatus: () => true })

/** The same client with a wrong secret. */
export const stranger = new FrontApi({
  baseURL,
  headers: { ...headers, 'X-Client-Secret': 'wrong' },
  validateStatus: () => true
})

export interface ConnectSpec {
  brokerType: BrokerType
  accounts?: { id: string; name: string; fund?: number; cash?: number }[]
  separateRefreshTokens?: boolean
  delayed?: boolean
  withTokenIds?: boolean
  logoBytes?: number
  institution?: Record<string, unknown>
}

export interface Connection {
  payload: LinkPayload
  accounts: { accountId: string; accessToken: string; refreshToken: string }[]
}

async function post(path: string, body: unknown): Promise<Response> {
  const answer = await fetch(baseURL + path, { method: 'POST', headers, body: JSON.stringify(body) })
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`)
  return answer
}

/** Connects as a user's browser would, and returns what it would hand over. */
export async function connect(spec: ConnectSpec): Promise<Connection> {
  return (await (await post('/sim/connect', spec)).json()) as Connection
}

/** Says what the next refreshes of an account will meet. */
export async function script(accountId: string, ...actions: Record<string, unknown>[]): Promise<void> {
  await post('/sim/script', { accountId, actions })
}
