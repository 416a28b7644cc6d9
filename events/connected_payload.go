package events

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// What the bare objects of some SDKs have beside what stands in a wrapped form.
var payloadMembers = [...]member{{"accessToken", true}, {"delayedAuth", true}, {"accountTokens", true}, {"refreshToken", true}}

// payload reads Mesh's LinkPayload: either form in its wrapper, or one of the
// bare objects that the iOS, Android and Flutter SDKs hand over.
func (r *connectReader) payload(v jsontext.Value) *LinkPayload {
	const needs = "needs accessToken or delayedAuth"
	at := location{name: "payload"}
	if v != nil && v.Kind() != '{' {
		r.refuse(at, misfit(v))
	}
	if v == nil || v.Kind() != '{' {
		r.refuse(at, needs)
		return nil
	}
	at = location{object: "payload"}
	var m [len(payloadMembers)]jsontext.Value
	r.members(v, at, payloadMembers[:], m[:])
	out, forms := &LinkPayload{}, 0
	for i, read := range []func(jsontext.Value, location){
		func(v jsontext.Value, at location) { out.AccessToken = r.accessTokens(v, at) },
		func(v jsontext.Value, at location) { out.DelayedAuth = r.delayedAuth(v, at) },
	} {
		wrapped, bare := m[i], m[2+i]
		switch name := payloadMembers[i].name; {
		case wrapped.Kind() == '{':
			forms++
			read(wrapped, location{object: "payload." + name})
		case bare != nil:
			forms++
			read(v, at)
		case wrapped != nil:
			r.lose(at.at(name), misfit(wrapped))
		}
	}
	if out.AccessToken != nil || out.DelayedAuth != nil {
		return out
	}
	switch {
	case r.lost != "":
		if r.refused == "" {
			r.refused = r.lost
		}
	case forms == 0:
		r.refuse(location{name: "payload"}, needs)
	}
	return out
}

var accessTokenMembers = [...]member{{"accountTokens", true}, {"brokerType", true}, {"brokerName", false}, {"expiresInSeconds", false}, {"refreshTokenExpiresInSeconds", false}}

// accessTokens reads the form with access tokens; nil: nothing of it can be kept.
func (r *connectReader) accessTokens(v jsontext.Value, at location) *AccessTokenPayload {
	var m [len(accessTokenMembers)]jsontext.Value
	r.members(v, at, accessTokenMembers[:], m[:])
	switch {
	case m[0] == nil:
		r.lose(at.at("accountTokens"), problemEmpty) // it may stand under another name
	case m[0].Kind() != '[':
		r.lose(at.at("accountTokens"), misfit(m[0]))
	}
	if m[0].Kind() != '[' {
		return nil
	}
	out := &AccessTokenPayload{
		BrokerName:                   r.display(m[2], at.at("brokerName")),
		ExpiresInSeconds:             r.seconds(m[3], at.at("expiresInSeconds")),
		RefreshTokenExpiresInSeconds: r.seconds(m[4], at.at("refreshTokenExpiresInSeconds")),
	}
	eachElement(m[0], func(i int, v jsontext.Value) {
		at := at
		at.entry = i + 1
		if t, ok := r.accountToken(v, at); ok {
			out.AccountTokens = append(out.AccountTokens, t)
		}
	})
	out.AccountTokens = r.nameless(out.AccountTokens, at)
	if len(out.AccountTokens) == 0 {
		return nil
	}
	if out.BrokerType = r.broker(m[1], at); out.BrokerType == "" {
		return nil
	}
	return out
}

var accountTokenMembers = [...]member{{"account", true}, {"accessToken", true}, {"refreshToken", true}, {"tradeToken", true}, {"tokenId", true}}

// accountToken reads one entry; false: nothing of it can be kept.
func (r *connectReader) accountToken(v jsontext.Value, at location) (AccountToken, bool) {
	if v.Kind() != '{' {
		if v.Kind() != 'n' {
			r.lose(at, misfit(v))
		} else {
			r.leave(at, problemEmpty)
		}
		return AccountToken{}, false
	}
	r.inEntry, r.ambiguous = true, false
	defer func() { r.inEntry = false }()
	var m [len(accountTokenMembers)]jsontext.Value
	r.members(v, at, accountTokenMembers[:], m[:])
	if r.ambiguous {
		return AccountToken{}, false
	}
	t := AccountToken{
		AccessToken: r.secret(m[1], at.at("accessToken")), RefreshToken: r.secret(m[2], at.at("refreshToken")),
		TradeToken: r.secret(m[3], at.at("tradeToken")), TokenID: r.handle(m[4], at.at("tokenId")),
	}
	if t.AccessToken.Empty() && t.RefreshToken.Empty() && t.TokenID.Empty() {
		r.leave(at, "no token")
		if !t.TradeToken.Empty() {
			r.lose(at, "neither accessToken nor refreshToken")
		}
		return t, false
	}
	t.Account = r.account(m[0], at)
	return t, !r.ambiguous
}

var accountMembers = [...]member{{"accountId", true}, {"accountName", false}}

func (r *connectReader) account(v jsontext.Value, at location) PayloadAccount {
	var m [len(accountMembers)]jsontext.Value
	switch v.Kind() {
	case '{':
		at.name = "account"
		inner := location{object: at.String()}
		r.members(v, inner, accountMembers[:], m[:])
	default:
		if v != nil {
			r.leave(at.at("account"), misfit(v))
		}
	}
	id, problem := textOf(m[0])
	if problem == "" {
		problem = problemOf(id)
	}
	switch {
	case problem != "":
		r.leave(at.at("account.accountId"), problem)
		id = ""
	case len(id) > maxNameBytes:
		r.leave(at.at("account.accountId"), tooLong(id)+"; a hash stands for it")
	}
	return PayloadAccount{AccountID: BoundedID(id), AccountName: r.display(m[1], at.at("account.accountName"))}
}

// nameless keeps of the entries without an account what can be kept: the refresh
// token, if no other entry has it. The first refresh names the accounts.
func (r *connectReader) nameless(entries []AccountToken, at location) []AccountToken {
	kept := entries[:0]
	named := func(t AccountToken) bool { return t.Account.AccountID != "" }
	for i, t := range entries {
		same := func(o AccountToken) bool { return o.RefreshToken == t.RefreshToken }
		switch {
		case named(t):
		case t.RefreshToken.Empty():
			r.lose(at.at("accountTokens"), "an account without accountId, and without a refresh token that would name it")
			continue
		case slices.ContainsFunc(entries, func(o AccountToken) bool { return named(o) && same(o) }), slices.ContainsFunc(entries[:i], same):
			continue
		default:
			t = AccountToken{RefreshToken: t.RefreshToken, TradeToken: t.TradeToken}
		}
		kept = append(kept, t)
	}
	return kept
}

var delayedAuthMembers = [...]member{{"refreshToken", true}, {"brokerType", true}, {"brokerName", false}, {"refreshTokenExpiresInSeconds", false}}

// delayedAuth reads the form with a refresh token only; nil: it has none.
func (r *connectReader) delayedAuth(v jsontext.Value, at location) *DelayedAuthPayload {
	var m [len(delayedAuthMembers)]jsontext.Value
	r.members(v, at, delayedAuthMembers[:], m[:])
	out := &DelayedAuthPayload{
		RefreshToken: r.secret(m[0], at.at("refreshToken")), BrokerName: r.display(m[2], at.at("brokerName")),
		RefreshTokenExpiresInSeconds: r.seconds(m[3], at.at("refreshTokenExpiresInSeconds")),
	}
	switch {
	case m[0] == nil:
		r.lose(at.at("refreshToken"), problemEmpty) // it may stand under another name
	case out.RefreshToken.Empty() && m[0].Kind() == '"' && len(m[0]) == 2:
		r.leave(at.at("refreshToken"), problemEmpty)
	}
	if out.RefreshToken.Empty() {
		return nil
	}
	if out.BrokerType = r.broker(m[1], at); out.BrokerType == "" {
		return nil
	}
	return out
}

// broker reads a broker type, without which a token serves nobody.
func (r *connectReader) broker(v jsontext.Value, at location) string {
	broker, problem := textOf(v)
	if problem == "" {
		problem = problemOf(broker)
	}
	if problem == "" && len(broker) > maxNameBytes {
		problem = tooLong(broker)
	}
	if problem != "" {
		r.lose(at.at("brokerType"), problem)
		return ""
	}
	return broker
}

// problemOf says what is wrong with the name of a broker or an account.
func problemOf(value string) string {
	if value == "" {
		return problemEmpty
	}
	if r, found := unseen(value); found {
		return fmt.Sprintf("contains the control or formatting character %U", r)
	}
	return ""
}

func tooLong(value string) string {
	return fmt.Sprintf("%d bytes, at most %d", len(value), maxNameBytes)
}
