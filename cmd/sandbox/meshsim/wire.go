package meshsim

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

const (
	StatusOK                         = "ok"
	StatusServerFailure              = "serverFailure"
	StatusPermissionDenied           = "permissionDenied"
	StatusBadRequest                 = "badRequest"
	StatusNotFound                   = "notFound"
	StatusConflict                   = "conflict"
	StatusTooManyRequest             = "tooManyRequest"
	StatusLocked                     = "locked"
	StatusUnavailableForLegalReasons = "unavailableForLegalReasons"
)

const (
	contentSucceeded   = "succeeded"
	contentFailed      = "failed"
	contentMFARequired = "mfaRequired"
)

type refreshRequest struct {
	Type                  string             `json:"type"`
	RefreshToken          secret.Text        `json:"refreshToken"`
	CreateNewRefreshToken *bool              `json:"createNewRefreshToken"`
	AccessToken           *secret.Text       `json:"accessToken"`
	TradeToken            *secret.Text       `json:"tradeToken"`
	MFACode               *secret.Text       `json:"mfaCode"`
	Metadata              map[string]*string `json:"metadata"`
}

type deleteRequest struct {
	Type      string      `json:"type"`
	AuthToken secret.Text `json:"authToken"`
}

type envelope struct {
	Status         string   `json:"status"`
	Message        *string  `json:"message"`
	DisplayMessage *string  `json:"displayMessage"`
	ErrorType      *string  `json:"errorType"`
	Content        *content `json:"content,omitzero"`
}

type content struct {
	Status                       string          `json:"status"`
	ErrorMessage                 *string         `json:"errorMessage"`
	BrokerAccountTokens          []accountTokens `json:"brokerAccountTokens"`
	ExpiresInSeconds             lifetime        `json:"expiresInSeconds,omitzero"`
	RefreshTokenExpiresInSeconds lifetime        `json:"refreshTokenExpiresInSeconds,omitzero"`
	AccessToken                  secret.Text     `json:"accessToken"`
	RefreshToken                 secret.Text     `json:"refreshToken"`
	Account                      *account        `json:"account"`
}

type account struct {
	AccountID     string   `json:"accountId"`
	AccountName   string   `json:"accountName"`
	Fund          *float64 `json:"fund"`
	Cash          *float64 `json:"cash"`
	IsReconnected *bool    `json:"isReconnected"`
}

type accountTokens struct {
	Account      *account     `json:"account"`
	AccessToken  secret.Text  `json:"accessToken"`
	RefreshToken secret.Text  `json:"refreshToken"`
	TokenID      *secret.Text `json:"tokenId"`
}

type linkPayload struct {
	AccessToken *linkForm `json:"accessToken,omitzero"`
	DelayedAuth *linkForm `json:"delayedAuth,omitzero"`
}

type linkForm struct {
	RefreshToken                 secret.Text        `json:"refreshToken,omitzero"`  // of delayedAuth
	AccountTokens                []linkAccountToken `json:"accountTokens,omitzero"` // of accessToken
	BrokerBrandInfo              brandInfo          `json:"brokerBrandInfo"`
	ExpiresInSeconds             lifetime           `json:"expiresInSeconds,omitzero"`
	RefreshTokenExpiresInSeconds lifetime           `json:"refreshTokenExpiresInSeconds,omitzero"`
	BrokerType                   string             `json:"brokerType"`
	BrokerName                   string             `json:"brokerName"`
}

type linkAccountToken struct {
	Account      linkAccount `json:"account"`
	AccessToken  secret.Text `json:"accessToken"`
	RefreshToken secret.Text `json:"refreshToken,omitzero"`
	TokenID      secret.Text `json:"tokenId,omitzero"`
	TradeToken   secret.Text `json:"tradeToken,omitzero"`
}

// linkAccount leaves out what an API answer gives as null.
type linkAccount struct {
	AccountID     string   `json:"accountId"`
	AccountName   string   `json:"accountName"`
	Fund          *float64 `json:"fund,omitzero"`
	Cash          *float64 `json:"cash,omitzero"`
	IsReconnected *bool    `json:"isReconnected,omitzero"`
}

type brandInfo struct {
	BrokerLogo   string `json:"brokerLogo"`
	LogoLightURL string `json:"logoLightUrl,omitzero"`
	LogoDarkURL  string `json:"logoDarkUrl,omitzero"`
}

// lifetime is a JSON value: a whole number of seconds, null, or nothing.
type lifetime = jsontext.Value

// lifetimeUntil writes the time left until end in the given form, and nothing for a zero
// end.
func lifetimeUntil(end, now time.Time, form LifetimeForm) lifetime {
	switch {
	case form == LifetimeNull:
		return lifetime("null")
	case form == LifetimeZero:
		return lifetime("0")
	case form == LifetimeAbsent || end.IsZero():
		return nil
	}
	v, _ := json.Marshal(int32(max(0, end.Sub(now)/time.Second)))
	return v
}
