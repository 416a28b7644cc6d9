package meshsim

import "time"

// behaviourDialects are what institutions do.
var behaviourDialects = []Dialect{
	{
		Name: "deprecatedFields", On: OnBehaviour, Says: "Only the deprecated top-level fields of the content are filled; they hold one account, and the others are not renewed.",
		behave: func(i *Institution) { i.DeprecatedAnswer = true },
	},
	{
		Name: "oneAccountAtATime", On: OnBehaviour, Says: "Each answer covers one of the accounts, in turn; the others keep the access tokens that they have.",
		behave: func(i *Institution) { i.OneAccountAtATime = true },
	},
	{
		Name: "oneTokenForAll", On: OnBehaviour, Says: "One entry without an account holds one access token, which is good for all accounts of the grant.",
		behave: func(i *Institution) { i.OneTokenForAll = true },
	},
	{
		Name: "refreshTokenEach", On: OnBehaviour, Says: "The first refresh gives each account of the grant a refresh token of its own.",
		behave: func(i *Institution) { i.RefreshTokenEach = true },
	},
	{
		Name: "refreshTokenAlone", On: OnBehaviour, Says: "Every other refresh answers a new refresh token and no access token.",
		behave: func(i *Institution) { i.RefreshTokenAlone = true },
	},
	{
		Name: "keptRefreshTokenLeftOut", On: OnBehaviour, Says: "A refresh token that stays the same is not told again.",
		behave: func(i *Institution) { i.OmitKeptRefreshToken = true },
	},
	{
		Name: "oldAccessTokenEnds", On: OnBehaviour, Says: "A refresh ends the earlier access tokens at once.",
		behave: func(i *Institution) { i.RevokeOldAccess = true },
	},
	{
		Name: "noLifetimes", On: OnBehaviour, Says: "No lifetime is stated in payloads and answers; tokens end all the same.",
		behave: func(i *Institution) { i.LifetimeForm = LifetimeAbsent },
	},
	{
		Name: "nullLifetimes", On: OnBehaviour, Says: "Lifetimes are null, which says as much as their absence.",
		behave: func(i *Institution) { i.LifetimeForm = LifetimeNull },
	},
	{
		Name: "zeroLifetimes", On: OnBehaviour, Says: "Lifetimes are 0, which says as much as their absence.",
		behave: func(i *Institution) { i.LifetimeForm = LifetimeZero },
	},
	{
		Name: "diesFromDisuse", On: OnBehaviour, Says: "A refresh token that was not used for a day (refreshIdle) is dead.",
		behave: func(i *Institution) { i.RefreshIdle = orElse(i.RefreshIdle, 24*time.Hour) },
	},
	{
		Name: "accessTokenRequired", On: OnBehaviour, Says: "A refresh must bring an access token of the grant, as at WeBull and Vanguard.",
		behave: func(i *Institution) { i.NeedsAccessToken = true },
	},
	{
		Name: "tradeTokenRequired", On: OnBehaviour, Says: "The connect hands over a trade token, and a refresh must bring it, as at WeBull.",
		behave: func(i *Institution) { i.NeedsTradeToken = true },
	},
	{
		Name: "managedTokens", On: OnBehaviour, Says: "Mesh Managed Tokens: the connect brings a tokenId that is the access token as well, never ends, and needs no refresh token.",
		behave: func(i *Institution) { i.ManagedTokens = true },
	},
	{
		Name: "mfa", On: OnBehaviour, Says: "The Vanguard flow: a refresh is answered mfaRequired with an interim access token; a second request must bring that token and the code 123456 (mfaCode) within five minutes (mfaLifetime).",
		behave: func(i *Institution) {
			i.MFACode, i.MFALifetime = orElse(i.MFACode, DefaultMFACode), orElse(i.MFALifetime, DefaultMFALifetime)
		},
	},
	{
		Name: "mfaAskedAgain", On: OnBehaviour, Says: "A wrong or late code is answered mfaRequired once more, with another interim access token.",
		behave: func(i *Institution) { i.MFAAskedAgain = true },
	},
}

func orElse[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
