import * as assert from 'node:assert/strict'
import { test } from 'node:test'
import type {
  ApiResult,
  B2BBrokerRefreshTokenResponseApiResult,
  BrokerBaseRequest,
  BrokerRefreshTokenRequest
} from '@meshconnect/node-api'
import { connect, mesh, script, stranger, type ConnectSpec } from './simulator'
import { PublishedTypes } from './types'

const api = new PublishedTypes('@meshconnect/node-api')
const sdk = new PublishedTypes('@meshconnect/web-link-sdk')

// Mismatches name fields, and so no failure of these checks prints a token.
const fitsRefresh = (v: unknown) => assert.deepEqual(api.mismatches('B2BBrokerRefreshTokenResponseApiResult', v), [])
const fitsResult = (v: unknown) => assert.deepEqual(api.mismatches('ApiResult', v), [])
const fitsPayload = (v: unknown) => assert.deepEqual(sdk.mismatches('LinkPayload', v), [])

async function one(spec: Partial<ConnectSpec> = {}) {
  const { accounts } = await connect({ brokerType: 'coinbase', ...spec })
  const first = accounts[0]
  assert.ok(first)
  return first
}

/** Refreshes with Mesh's client and holds the answer against Mesh's type. */
async function refresh(request: BrokerRefreshTokenRequest) {
  const answer = await mesh.managedAccountAuthentication.v1TokenRefreshCreate(request)
  const data: B2BBrokerRefreshTokenResponseApiResult = answer.data
  fitsRefresh(data)
  return { code: answer.status, data, content: data.content }
}

test('a refresh rotates', async () => {
  const { accountId, accessToken, refreshToken } = await one()
  const { code, data, content } = await refresh({ type: 'coinbase', refreshToken })
  assert.equal(code, 200)
  assert.equal(data.status, 'ok')
  assert.equal(content?.status, 'succeeded')
  assert.equal(content.expiresInSeconds, 3600)
  const tokens = content.brokerAccountTokens?.[0]
  assert.equal(tokens?.account?.accountId, accountId)
  assert.ok(tokens.accessToken && tokens.accessToken !== accessToken)
  assert.ok(tokens.refreshToken && tokens.refreshToken !== refreshToken)

  const replaced = await refresh({ type: 'coinbase', refreshToken })
  assert.equal(replaced.code, 200)
  assert.equal(replaced.content?.status, 'failed')
  assert.ok(replaced.content.errorMessage)
})

test('every field of the request is understood', async () => {
  const { accessToken, refreshToken } = await one({ brokerType: 'weBull' })
  const missing = await refresh({ type: 'weBull', refreshToken })
  assert.equal(missing.code, 400)
  const full: Required<BrokerRefreshTokenRequest> = {
    type: 'weBull',
    refreshToken,
    createNewRefreshToken: true,
    accessToken,
    tradeToken: null,
    mfaCode: null,
    metadata: { one: '1', none: null }
  }
  assert.equal((await refresh(full)).content?.status, 'succeeded')
})

test('MFA takes a second request', async () => {
  const { refreshToken } = await one({ institution: { mfaCode: '123456' } })
  const asked = await refresh({ type: 'coinbase', refreshToken })
  assert.equal(asked.code, 200)
  assert.equal(asked.content?.status, 'mfaRequired')
  const interim = asked.content.brokerAccountTokens?.[0]?.accessToken
  assert.ok(interim)
  const done = await refresh({ type: 'coinbase', refreshToken, mfaCode: '123456', accessToken: interim })
  assert.equal(done.content?.status, 'succeeded')
})

test('odd but allowed answers fit the type', async () => {
  const { accountId, refreshToken } = await one({ accounts: [{ id: 'odd', name: 'Odd', fund: 1.5, cash: 0 }] })
  await script(
    accountId,
    { kind: 'omitRefreshToken', after: true },
    { kind: 'failed', message: 'later' },
    { kind: 'envelope', envelope: 'locked', status: 200, message: 'locked', errorType: 'locked' },
    { kind: 'envelope', envelope: 'unavailableForLegalReasons', status: 451 }
  )
  const request: BrokerRefreshTokenRequest = { type: 'coinbase', refreshToken }
  assert.ok(!(await refresh(request)).content?.brokerAccountTokens?.[0]?.refreshToken)
  assert.equal((await refresh(request)).content?.errorMessage, 'later')
  assert.equal((await refresh(request)).data.status, 'locked')
  assert.equal((await refresh(request)).code, 451)
  const old = await one({ institution: { accessLifetime: '1h', dialects: ['deprecatedFields'] } })
  const { content } = await refresh({ type: 'coinbase', refreshToken: old.refreshToken })
  assert.ok(content?.accessToken && content.refreshToken && content.account?.accountId === old.accountId)
})

test('a bad request is answered 400 with an envelope', async () => {
  const { refreshToken } = await one()
  for (const request of [
    { type: 'coinbase', refreshToken: '' },
    { type: 'kraken', refreshToken }
  ] satisfies BrokerRefreshTokenRequest[]) {
    const answer = await mesh.managedAccountAuthentication.v1TokenRefreshCreate(request)
    assert.equal(answer.status, 400)
    assert.equal(answer.data.status, 'badRequest')
    fitsResult(answer.data)
  }
})

test('wrong credentials are answered 401', async () => {
  const { accessToken, refreshToken } = await one()
  const refused = await stranger.managedAccountAuthentication.v1TokenRefreshCreate({ type: 'coinbase', refreshToken })
  assert.equal(refused.status, 401)
  const kept = await stranger.managedAccountAuthentication.v1AccountDelete({ type: 'coinbase', authToken: accessToken })
  assert.equal(kept.status, 401)
  assert.equal((await refresh({ type: 'coinbase', refreshToken })).content?.status, 'succeeded')
})

test('an account is removed once', async () => {
  const { accessToken, refreshToken } = await one()
  const request: BrokerBaseRequest = { type: 'coinbase', authToken: accessToken }
  const removed = await mesh.managedAccountAuthentication.v1AccountDelete(request)
  const result: ApiResult = removed.data
  fitsResult(result)
  assert.equal(removed.status, 200)
  assert.equal(result.status, 'ok')
  assert.equal((await refresh({ type: 'coinbase', refreshToken })).content?.status, 'failed')
  const again = await mesh.managedAccountAuthentication.v1AccountDelete(request)
  assert.equal(again.status, 400)
  fitsResult(again.data)
})

test('a backend finds what it needs beside the tokens', async () => {
  const { accessToken, refreshToken } = await one()
  const link = await mesh.managedAccountAuthentication.v1LinktokenCreate({ userId: 'u'.repeat(300), restrictMultipleAccounts: true })
  assert.equal(link.status, 200)
  assert.deepEqual(api.mismatches('LinkTokenModelApiResult', link.data), [])
  assert.ok(new URL(Buffer.from(link.data.content?.linkToken ?? '', 'base64').toString()))
  const refusedLink = await mesh.managedAccountAuthentication.v1LinktokenCreate({ userId: 'u'.repeat(301) })
  assert.equal(refusedLink.status, 400)

  const status = await mesh.managedAccountAuthentication.v1StatusList()
  assert.equal(status.status, 200)
  assert.deepEqual(api.mismatches('B2BBrokersHealthStatusListApiResult', status.data), [])
  assert.ok(status.data.content?.every(i => i.isUp))
  assert.equal((await stranger.managedAccountAuthentication.v1StatusList()).status, 401)

  const integrations = await mesh.managedAccountAuthentication.v1IntegrationsList()
  assert.deepEqual(api.mismatches('IntegrationsResponseApiResult', integrations.data), [])
  const coinbase = integrations.data.content?.items?.find(i => i.type === 'coinbase')
  assert.ok(coinbase?.id)
  const narrowed = await mesh.managedAccountAuthentication.v1LinktokenCreate({ userId: 'u', integrationId: coinbase.id })
  assert.equal(narrowed.status, 200)

  const holdings = await mesh.portfolio.v1HoldingsGetCreate({ type: 'coinbase', authToken: accessToken })
  assert.equal(holdings.status, 200)
  assert.deepEqual(api.mismatches('HoldingsModelApiResult', holdings.data), [])
  const value = await mesh.portfolio.v1HoldingsValueCreate({ type: 'coinbase', authToken: accessToken })
  assert.deepEqual(api.mismatches('BrokerPortfolioValueModelApiResult', value.data), [])
  const portfolio = await mesh.portfolio.v1HoldingsPortfolioList({ UserId: 'u', TimezoneOffset: 3600 })
  assert.equal(portfolio.status, 200)
  assert.deepEqual(api.mismatches('B2BPortfolioModelApiResult', portfolio.data), [])
  const balance = await mesh.balance.v1BalanceGetCreate({ type: 'coinbase', authToken: accessToken })
  assert.equal(balance.status, 200)
  assert.deepEqual(api.mismatches('B2BBrokerAccountBalanceModelApiResult', balance.data), [])
  const fiat = await mesh.balance.v1BalancePortfolioList({ UserId: 'u' })
  assert.equal(fiat.status, 200)
  assert.deepEqual(api.mismatches('B2BFiatPortfolioModelApiResult', fiat.data), [])
  const wrong = await mesh.portfolio.v1HoldingsGetCreate({ type: 'coinbase', authToken: refreshToken })
  assert.equal(wrong.status, 401)
})

test('dialects that the types allow fit them', async () => {
  for (const dialect of ['noAccount', 'accountIdNull', 'noContentStatus', 'noEnvelopeStatus', 'oneTokenForAll', 'echoFirst', 'refreshTokenAlone', 'tokensUnder400']) {
    const { refreshToken } = await one({ institution: { accessLifetime: '1h', dialects: [dialect] } })
    const { content } = await refresh({ type: 'coinbase', refreshToken })
    assert.ok(content, dialect)
  }
})

test('what the browser hands over fits the SDK', async () => {
  const accounts = [
    { id: 'browser-1', name: 'One', fund: 10.25, cash: 0 },
    { id: 'browser-2', name: 'Two' }
  ]
  for (const spec of [
    { accounts },
    { accounts, separateRefreshTokens: true, withTokenIds: true },
    { delayed: true },
    { institution: { accessLifetime: '1h', lifetimeForm: 'zero' } },
    { institution: { accessLifetime: '1h', lifetimeForm: 'absent' } }
  ] satisfies Partial<ConnectSpec>[]) {
    const { payload } = await connect({ brokerType: 'coinbase', logoBytes: 32 << 10, ...spec })
    fitsPayload(payload)
    const form = payload.accessToken ?? payload.delayedAuth
    assert.equal(form?.brokerBrandInfo.brokerLogo.length, 32 << 10)
    assert.equal(payload.delayedAuth !== undefined, 'delayed' in spec)
  }
})

test('the check finds what does not fit', () => {
  const content = { status: 'succeeded', expiresInSeconds: 3600, brokerAccountTokens: [{ accessToken: 'a' }] }
  fitsRefresh({ status: 'ok', content })
  const check = (change: object) =>
    api.mismatches('B2BBrokerRefreshTokenResponseApiResult', { status: 'ok', content: { ...content, ...change } }).length
  assert.equal(check({}), 0)
  for (const wrong of [
    { status: 'done' },
    { status: null },
    { expiresInSeconds: '3600' },
    { expiresInSeconds: 1.5 },
    { unknown: 1 },
    { brokerAccountTokens: {} },
    { brokerAccountTokens: [{ accessToken: 1 }] },
    { account: { fund: '1' } },
    { account: [] }
  ]) {
    assert.equal(check(wrong), 1, JSON.stringify(wrong))
  }
  assert.equal(sdk.mismatches('LinkPayload', { delayedAuth: {} }).length, 4)
  assert.equal(sdk.mismatches('NoSuchType', {}).length, 1)
})
