package meshsim

import (
	"cmp"
	"time"
)

var behaviourDialects = []Dialect{
	behaves("deprecatedFields", "Only the deprecated top-level fields of the content are filled; they hold one account, and the others are not renewed.",
		func(i *Institution) { i.DeprecatedAnswer = true }),
	behaves("oneAccountAtATime", "Each answer covers one of the accounts, in turn; the others keep the access tokens that they have.",
		func(i *Institution) { i.OneAccountAtATime = true }),
	behaves("oneTokenForAll", "One entry without an account holds one access token, which is good for all accounts of the grant.",
		func(i *Institution) { i.OneTokenForAll = true }),
	behaves("refreshTokenEach", "The first refresh gives each account of the grant a refresh token of its own.",
		func(i *Institution) { i.RefreshTokenEach = true }),
	behaves("refreshTokenAlone", "Every other refresh answers a new refresh token and no access token.",
		func(i *Institution) { i.RefreshTokenAlone = true }),
	behaves("keptRefreshTokenLeftOut", "A refresh token that stays the same is not repeated.",
		func(i *Institution) { i.OmitKeptRefreshToken = true }),
	behaves("oldAccessTokenEnds", "A refresh ends the earlier access tokens at once.",
		func(i *Institution) { i.RevokeOldAccess = true }),
	behaves("noLifetimes", "No lifetime is stated in payloads and answers; tokens end all the same.",
		func(i *Institution) { i.LifetimeForm = LifetimeAbsent }),
	behaves("nullLifetimes", "Lifetimes are null, which says as much as their absence.",
		func(i *Institution) { i.LifetimeForm = LifetimeNull }),
	behaves("zeroLifetimes", "Lifetimes are 0, which says as much as their absence.",
		func(i *Institution) { i.LifetimeForm = LifetimeZero }),
	behaves("diesFromDisuse", "A refresh token that was not used for a day (refreshIdle) is dead.",
		func(i *Institution) { i.RefreshIdle = cmp.Or(i.RefreshIdle, 24*time.Hour) }),
	behaves("accessTokenRequired", "A refresh must bring an access token of the grant, as at WeBull and Vanguard.",
		func(i *Institution) { i.NeedsAccessToken = true }),
	behaves("tradeTokenRequired", "The connect hands over a trade token, and a refresh must bring it, as at WeBull.",
		func(i *Institution) { i.NeedsTradeToken = true }),
	behaves("managedTokens", "Mesh Managed Tokens: the connect brings a tokenId that is the access token as well, never ends, and needs no refresh token.",
		func(i *Institution) { i.ManagedTokens = true }),
	behaves("mfa", "The Vanguard flow: a refresh is answered mfaRequired with an interim access token; a second request must bring that token and the code 123456 (mfaCode) within five minutes (mfaLifetime).",
		func(i *Institution) {
			i.MFACode, i.MFALifetime = cmp.Or(i.MFACode, DefaultMFACode), cmp.Or(i.MFALifetime, DefaultMFALifetime)
		}),
	behaves("mfaAskedAgain", "A wrong or late code is answered mfaRequired once more, with another interim access token.",
		func(i *Institution) { i.MFAAskedAgain = true }),
}
