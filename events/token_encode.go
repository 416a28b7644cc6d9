package events

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Encode returns the reply as JSON with the tokens in the clear. It is meant
// for the requester and for nobody else.
//
// It is written by hand since every request waits for it; a test compares it to
// what encoding/json makes of the same.
func (r TokenReply) Encode() ([]byte, error) {
	size := 64
	for _, t := range r.AccessTokens {
		size += 512 + len(t.AccessToken.Reveal()) // enough as a rule: no copy of a token stays in an outgrown buffer
	}
	e := encoder{b: make([]byte, 0, size)}
	e.raw(`{"accessTokens":[`)
	for i, t := range r.AccessTokens {
		e.comma(i)
		e.text(`{"accountId":`, t.AccountID)
		e.text(`,"accountName":`, t.AccountName)
		e.text(`,"accessToken":`, t.AccessToken.Reveal())
		e.text(`,"brokerType":`, t.BrokerType)
		e.text(`,"brokerName":`, t.BrokerName)
		if !t.TokenID.Empty() {
			e.text(`,"tokenId":`, t.TokenID.Reveal())
		}
		e.raw(`}`)
	}
	e.raw(`],"expiries":[`)
	for i, t := range r.Expiries {
		e.comma(i)
		e.text(`{"accountId":`, t.AccountID)
		e.text(`,"grantId":`, t.GrantID)
		e.labels(t.Labels)
		if t.Version != 0 {
			e.int(`,"version":`, t.Version)
		}
		e.time(`,"obtainedAt":`, t.ObtainedAt)
		e.time(`,"expiresAt":`, t.ExpiresAt)
		e.time(`,"refreshTokenExpiresAt":`, t.RefreshTokenExpiresAt)
		e.failing(`,"refreshFailing":`, t.RefreshFailing)
		e.raw(`}`)
	}
	e.raw(`]`)
	for i, u := range r.Unavailable {
		if i == 0 {
			e.raw(`,"unavailable":[{`)
		} else {
			e.raw(`,{`)
		}
		if u.AccountID != "" {
			e.text(`"accountId":`, u.AccountID)
			e.raw(`,`)
		}
		e.text(`"brokerType":`, u.BrokerType)
		e.text(`,"grantId":`, u.GrantID)
		e.text(`,"code":`, u.Code)
		if u.Reason != "" {
			e.text(`,"reason":`, string(u.Reason))
		}
		if u.RetryAfterSeconds != 0 {
			e.int(`,"retryAfterSeconds":`, u.RetryAfterSeconds)
		}
		e.raw(`}`)
	}
	if len(r.Unavailable) > 0 {
		e.raw(`]`)
	}
	e.refused(r.Refused)
	e.raw(`}`)
	if e.failed {
		clear(e.b)
		return nil, errors.New("encoding a token reply failed")
	}
	return e.b, nil
}

// encoder appends JSON.
type encoder struct {
	b      []byte
	failed bool
}

func (e *encoder) raw(s string) { e.b = append(e.b, s...) }

func (e *encoder) comma(i int) {
	if i > 0 {
		e.raw(`,`)
	}
}

// text appends a text after its name; what is not UTF-8 is replaced.
func (e *encoder) text(name, s string) {
	e.raw(name)
	e.b, _ = jsontext.AppendQuote(e.b, s)
}

// labels appends labels, if there are any.
func (e *encoder) labels(labels map[string]string) {
	if len(labels) == 0 {
		return
	}
	e.raw(`,"labels":{`)
	for i, name := range slices.Sorted(maps.Keys(labels)) {
		e.comma(i)
		e.b, _ = jsontext.AppendQuote(e.b, name)
		e.text(`:`, labels[name])
	}
	e.raw(`}`)
}

// time appends a time after its name, if there is one.
func (e *encoder) time(name string, t *time.Time) {
	if t == nil {
		return
	}
	e.raw(name)
	e.raw(`"`)
	var err error
	e.b, err = t.AppendText(e.b)
	e.failed = e.failed || err != nil
	e.raw(`"`)
}
