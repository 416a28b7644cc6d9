package meshsim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// connectCommand is the body of POST /sim/connect: a [ConnectSpec], also in the names of
// Link's payloads, with or without their wrapper, and of Mesh's answers
// (@meshconnect/node-api 2.0.28 and @meshconnect/web-link-sdk 3.13.0). The simulator
// issues its own tokens and ignores those in the body.
type connectCommand struct {
	ConnectSpec
	Type          string           `json:"type"`
	Accounts      []connectAccount `json:"accounts"`
	AccountTokens []connectTokens  `json:"accountTokens"`
	BrokerTokens  []connectTokens  `json:"brokerAccountTokens"`
	// Lifetimes in seconds.
	ExpiresInSeconds             *float64        `json:"expiresInSeconds"`
	RefreshTokenExpiresInSeconds *float64        `json:"refreshTokenExpiresInSeconds"`
	Dialects                     []string        `json:"dialects"`
	AccessToken                  accessTokenForm `json:"accessToken"`
	DelayedAuth                  *connectCommand `json:"delayedAuth"`

	UserID                   jsontext.Value `json:"userId"`
	IntegrationID            jsontext.Value `json:"integrationId"`
	RestrictMultipleAccounts jsontext.Value `json:"restrictMultipleAccounts"`
	BrokerBrandInfo          jsontext.Value `json:"brokerBrandInfo"`
	RefreshToken             jsontext.Value `json:"refreshToken"`
	TradeToken               jsontext.Value `json:"tradeToken"`
	TokenID                  jsontext.Value `json:"tokenId"`
	CreateNewRefreshToken    jsontext.Value `json:"createNewRefreshToken"`
	Metadata                 jsontext.Value `json:"metadata"`
	Status                   jsontext.Value `json:"status"`
	ErrorMessage             jsontext.Value `json:"errorMessage"`
}

type connectAccount struct {
	Account
	AccountID   string `json:"accountId"`
	AccountName string `json:"accountName"`

	MeshAccountID  jsontext.Value `json:"meshAccountId"`
	FrontAccountID jsontext.Value `json:"frontAccountId"`
	Balances       jsontext.Value `json:"balances"`
}

type connectTokens struct {
	Account connectAccount `json:"account"`

	AccessToken  jsontext.Value `json:"accessToken"`
	RefreshToken jsontext.Value `json:"refreshToken"`
	TradeToken   jsontext.Value `json:"tradeToken"`
	TokenID      jsontext.Value `json:"tokenId"`
}

// accessTokenForm is a form of Link's payload, or an access token, which is ignored.
type accessTokenForm struct{ *connectCommand }

func (f *accessTokenForm) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '{' {
		return dec.SkipValue()
	}
	return json.UnmarshalDecode(dec, &f.connectCommand)
}

// mergeForms merges the forms of Link's payload into the command.
func (c connectCommand) mergeForms() connectCommand {
	for _, form := range []*connectCommand{c.AccessToken.connectCommand, c.DelayedAuth} {
		if form == nil {
			continue
		}
		inner := form.mergeForms()
		c.BrokerType, c.BrokerName = cmp.Or(c.BrokerType, inner.BrokerType), cmp.Or(c.BrokerName, inner.BrokerName)
		c.Type = cmp.Or(c.Type, inner.Type)
		c.Accounts = slices.Concat(c.Accounts, inner.Accounts)
		c.AccountTokens = slices.Concat(c.AccountTokens, inner.AccountTokens, inner.BrokerTokens)
		c.ExpiresInSeconds = cmp.Or(c.ExpiresInSeconds, inner.ExpiresInSeconds)
		c.RefreshTokenExpiresInSeconds = cmp.Or(c.RefreshTokenExpiresInSeconds, inner.RefreshTokenExpiresInSeconds)
	}
	c.Delayed = c.Delayed || c.DelayedAuth != nil && c.AccessToken.connectCommand == nil
	return c
}

func (c connectCommand) spec() ConnectSpec {
	spec := c.ConnectSpec
	spec.BrokerType = cmp.Or(spec.BrokerType, c.Type)
	list := slices.Clone(c.Accounts)
	for _, t := range slices.Concat(c.AccountTokens, c.BrokerTokens) {
		list = append(list, t.Account)
	}
	for _, a := range list {
		a.ID, a.Name = cmp.Or(a.AccountID, a.ID), cmp.Or(a.AccountName, a.Name)
		spec.Accounts = append(spec.Accounts, a.Account)
	}
	return spec
}

// changes reports whether the command changes an institution besides naming it.
func (c connectCommand) changes() bool {
	return c.ExpiresInSeconds != nil || c.RefreshTokenExpiresInSeconds != nil || len(c.Dialects) > 0
}

func (c connectCommand) change(i *Institution) (err error) {
	if c.ExpiresInSeconds != nil {
		if i.AccessLifetime, err = seconds(*c.ExpiresInSeconds); err != nil {
			return fmt.Errorf("expiresInSeconds: %w", err)
		}
	}
	if c.RefreshTokenExpiresInSeconds != nil {
		if i.RefreshLifetime, err = seconds(*c.RefreshTokenExpiresInSeconds); err != nil {
			return fmt.Errorf("refreshTokenExpiresInSeconds: %w", err)
		}
	}
	if len(c.Dialects) > 0 {
		i.Dialects = slices.Concat(i.Dialects, c.Dialects)
	}
	return nil
}

// maxSeconds is about a hundred years.
const maxSeconds = 100 * 366 * 24 * 3600

func seconds(n float64) (time.Duration, error) {
	if n > maxSeconds || n < -maxSeconds {
		return 0, fmt.Errorf("%v seconds are more than a hundred years", n)
	}
	return time.Duration(n * float64(time.Second)), nil
}

// textNumber reads a number that may be a JSON string.
func textNumber[T int | int64 | float64]() *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(dec *jsontext.Decoder, into *T) error {
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		if value.Kind() == '"' {
			var text string
			if err := json.Unmarshal(value, &text); err != nil {
				return err
			}
			if value = jsontext.Value(text); value.Kind() != '0' {
				return fmt.Errorf("%q is not a number", text)
			}
		}
		return json.Unmarshal(value, into)
	})
}

var numbersAsTexts = json.JoinUnmarshalers(textNumber[int](), textNumber[int64](), textNumber[float64]())
