package meshsim

import "time"

// Rotation says when a refresh replaces the refresh token.
type Rotation string

// The rotations. The zero value is [RotateAlways].
const (
	RotateAlways    Rotation = ""          // every refresh replaces it
	RotateOnRequest Rotation = "onRequest" // only with createNewRefreshToken
	RotateNever     Rotation = "never"
)

// GraceMode says how a refresh token is answered that was replaced a moment ago.
type GraceMode string

// The grace modes. The zero value is [GraceNewest].
const (
	// GraceNewest answers the chain's newest tokens once more and replaces nothing.
	GraceNewest GraceMode = ""
	// GraceRotate replaces the newest refresh token as if that one had been
	// presented. A client that did hold the newest token then holds a replaced one.
	GraceRotate GraceMode = "rotate"
)

// LifetimeForm is the shape in which payloads and answers give lifetimes. All but
// the first mean "not told"; tokens expire all the same.
type LifetimeForm string

// The lifetime forms. The zero value is [LifetimeSeconds].
const (
	LifetimeSeconds LifetimeForm = ""
	LifetimeAbsent  LifetimeForm = "absent"
	LifetimeNull    LifetimeForm = "null"
	LifetimeZero    LifetimeForm = "zero"
)

// Institution is the behaviour of one chain of tokens. The zero value rotates
// always, knows no grace, kills the chain at reuse and lets nothing expire.
type Institution struct {
	Rotation      Rotation      `json:"rotation,omitzero"`
	TolerateReuse bool          `json:"tolerateReuse,omitzero"` // a replaced token is refused, the chain lives on
	Grace         time.Duration `json:"grace,omitzero"`
	GraceMode     GraceMode     `json:"graceMode,omitzero"`

	AccessLifetime  time.Duration `json:"accessLifetime,omitzero"`  // 0: for ever
	RefreshLifetime time.Duration `json:"refreshLifetime,omitzero"` // 0: for ever
	LifetimeForm    LifetimeForm  `json:"lifetimeForm,omitzero"`
	// RefreshIdle is how long a refresh token lives without being used; 0: for ever.
	RefreshIdle time.Duration `json:"refreshIdle,omitzero"`

	// RevokeOldAccess ends the earlier access tokens of an account at each refresh.
	RevokeOldAccess bool `json:"revokeOldAccess,omitzero"`
	// NeedsAccessToken answers 400 to a refresh without an access token of the chain.
	NeedsAccessToken bool `json:"needsAccessToken,omitzero"`
	// NeedsTradeToken hands over a trade token at the connect and answers 400 to a
	// refresh without it.
	NeedsTradeToken bool `json:"needsTradeToken,omitzero"`
	// ManagedTokens is the model of Mesh Managed Tokens: the connect brings a tokenId,
	// which is the access token as well, and no refresh token. Access tokens do not end.
	ManagedTokens bool `json:"managedTokens,omitzero"`
	// MFACode, when set, is asked for at every refresh: the first request is
	// answered mfaRequired with an interim access token, a second one must bring
	// that token and this code.
	MFACode string `json:"mfaCode,omitzero"`
	// MFALifetime is how long the second request may take; 0: for ever.
	MFALifetime time.Duration `json:"mfaLifetime,omitzero"`
	// MFAAskedAgain answers mfaRequired once more to a wrong or late code.
	MFAAskedAgain bool `json:"mfaAskedAgain,omitzero"`

	// DeprecatedAnswer fills only the deprecated fields of an answer, which hold one
	// account; a chain's other accounts are not renewed.
	DeprecatedAnswer bool `json:"deprecatedAnswer,omitzero"`
	// OneAccountAtATime answers new tokens of one account, and those of the next one
	// at the next refresh.
	OneAccountAtATime bool `json:"oneAccountAtATime,omitzero"`
	// OneTokenForAll answers one access token, in an entry without an account, that
	// is good for all accounts.
	OneTokenForAll bool `json:"oneTokenForAll,omitzero"`
	// RefreshTokenEach gives each account a refresh token of its own, and so a chain
	// of its own, when the refresh token that they share is replaced.
	RefreshTokenEach bool `json:"refreshTokenEach,omitzero"`
	// RefreshTokenAlone answers a new refresh token and no access token at every
	// other refresh that replaces the refresh token.
	RefreshTokenAlone bool `json:"refreshTokenAlone,omitzero"`
	// OmitKeptRefreshToken leaves the refresh token out of an answer that did not
	// replace it.
	OmitKeptRefreshToken bool `json:"omitKeptRefreshToken,omitzero"`

	// Dialects are names of [Dialects] that the institution speaks. Some set fields
	// of this type.
	Dialects []string `json:"dialects,omitzero"`
}

// Lifetimes of [DefaultInstitution].
const (
	DefaultAccessLifetime  = time.Hour
	DefaultRefreshLifetime = 90 * 24 * time.Hour
)

// What the dialect "mfa" asks for.
const (
	DefaultMFACode     = "123456"
	DefaultMFALifetime = 5 * time.Minute
)

// DefaultInstitution is what a broker type behaves like unless told otherwise.
func DefaultInstitution(brokerType string) Institution {
	i := Institution{AccessLifetime: DefaultAccessLifetime, RefreshLifetime: DefaultRefreshLifetime}
	switch brokerType {
	case "weBull", "vanguard":
		i.NeedsAccessToken = true
	case "tdAmeritrade":
		i.Rotation = RotateOnRequest
	}
	return i
}
