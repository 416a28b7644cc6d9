package meshsim

import "time"

// Rotation is when a refresh replaces the refresh token.
type Rotation string

const (
	RotateAlways    Rotation = ""          // every refresh replaces it
	RotateOnRequest Rotation = "onRequest" // only with createNewRefreshToken
	RotateNever     Rotation = "never"
)

// GraceMode is the answer to a refresh token that was replaced a moment ago.
type GraceMode string

const (
	// GraceNewest answers the chain's newest tokens once more and replaces nothing.
	GraceNewest GraceMode = ""
	// GraceRotate replaces the newest refresh token as if that one had been
	// presented. A client that did hold the newest token then holds a replaced one.
	GraceRotate GraceMode = "rotate"
)

// LifetimeForm is how payloads and answers write lifetimes. All but the first mean
// "unknown"; tokens expire all the same.
type LifetimeForm string

const (
	LifetimeSeconds LifetimeForm = ""
	LifetimeAbsent  LifetimeForm = "absent"
	LifetimeNull    LifetimeForm = "null"
	LifetimeZero    LifetimeForm = "zero"
)

// Institution is the behaviour of one chain of tokens. The zero value always rotates,
// has no grace, kills the chain at reuse and lets nothing expire.
type Institution struct {
	Rotation      Rotation      `json:"rotation,omitzero"`
	TolerateReuse bool          `json:"tolerateReuse,omitzero"` // a replaced token is refused, the chain lives on
	Grace         time.Duration `json:"grace,omitzero"`
	GraceMode     GraceMode     `json:"graceMode,omitzero"`

	AccessLifetime  time.Duration `json:"accessLifetime,omitzero"`  // 0: for ever
	RefreshLifetime time.Duration `json:"refreshLifetime,omitzero"` // 0: for ever
	LifetimeForm    LifetimeForm  `json:"lifetimeForm,omitzero"`
	RefreshIdle     time.Duration `json:"refreshIdle,omitzero"` // an unused refresh token lives so long; 0: for ever

	RevokeOldAccess  bool `json:"revokeOldAccess,omitzero"`  // a refresh ends the account's earlier access tokens
	NeedsAccessToken bool `json:"needsAccessToken,omitzero"` // 400 to a refresh without an access token of the chain
	NeedsTradeToken  bool `json:"needsTradeToken,omitzero"`  // 400 to a refresh without the trade token of the connect
	// ManagedTokens is Mesh Managed Tokens: the connect brings a tokenId, which is the
	// access token as well, and no refresh token. Access tokens do not end.
	ManagedTokens bool `json:"managedTokens,omitzero"`
	// MFACode, when set, is required at every refresh: the first request is answered
	// mfaRequired with an interim access token, a second must bring that token and this code.
	MFACode       string        `json:"mfaCode,omitzero"`
	MFALifetime   time.Duration `json:"mfaLifetime,omitzero"`   // how long the second request may take; 0: for ever
	MFAAskedAgain bool          `json:"mfaAskedAgain,omitzero"` // mfaRequired again to a wrong or late code

	// DeprecatedAnswer fills only the deprecated fields of an answer, which hold one
	// account; a chain's other accounts are not renewed.
	DeprecatedAnswer  bool `json:"deprecatedAnswer,omitzero"`
	OneAccountAtATime bool `json:"oneAccountAtATime,omitzero"` // each refresh answers new tokens of one account, in turn
	OneTokenForAll    bool `json:"oneTokenForAll,omitzero"`    // one access token, without an account, opens all accounts
	// RefreshTokenEach gives each account a refresh token, and so a chain, of its own when
	// the one that they share is replaced.
	RefreshTokenEach bool `json:"refreshTokenEach,omitzero"`
	// RefreshTokenAlone answers no access token at every other refresh that replaces the
	// refresh token.
	RefreshTokenAlone    bool `json:"refreshTokenAlone,omitzero"`
	OmitKeptRefreshToken bool `json:"omitKeptRefreshToken,omitzero"` // left out of an answer that did not replace it

	Dialects []string `json:"dialects,omitzero"` // names of [Dialects]; some set fields of this type
}

// Lifetimes of [DefaultInstitution], and what the dialect "mfa" asks for.
const (
	DefaultAccessLifetime  = time.Hour
	DefaultRefreshLifetime = 90 * 24 * time.Hour
	DefaultMFACode         = "123456"
	DefaultMFALifetime     = 5 * time.Minute
)

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
