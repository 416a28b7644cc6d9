package events

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

// payloadMembers are those of the wrapped forms, and the members by which to recognise
// the bare object of each form.
var payloadMembers = []member{{"accessToken", true}, {"delayedAuth", true}, {"accountTokens", true}, {"refreshToken", true}}

// payload reads Mesh's LinkPayload.
func (r *connectReader) payload(v jsontext.Value) *LinkPayload {
	const needs = "needs accessToken or delayedAuth"
	at := location{name: "payload"}
	if v.Kind() != '{' {
		if v != nil {
			r.refuse(at, wrongKind(v))
		}
		r.refuse(at, needs)
		return nil
	}
	m := r.members(v, location{object: "payload"}, payloadMembers)
	out := &LinkPayload{}
	var access, delayed bool
	out.AccessToken, access = readForm(r, "accessToken", m[0], m[2], v, r.accessTokens)
	out.DelayedAuth, delayed = readForm(r, "delayedAuth", m[1], m[3], v, r.delayedAuth)
	switch {
	case out.AccessToken != nil || out.DelayedAuth != nil:
	case r.lost != "":
		r.refused = cmp.Or(r.refused, r.lost)
	case access || delayed:
	case slices.ContainsFunc(payloadMembers, func(m member) bool { return hasMember(v, m.name) }):
		r.leaveOut(at, "no token") // all members are null
	default:
		r.refuse(at, needs)
	}
	return out
}

// readForm reads one form from its wrapper or, if nothing there is usable and the payload
// has the bare object's member, from the payload. found: the payload has the form.
func readForm[T any](r *connectReader, name string, wrapped, bare, payload jsontext.Value, read func(jsontext.Value, location) *T) (form *T, found bool) {
	at := location{object: "payload"}
	switch {
	case wrapped.Kind() == '{':
		form, found = read(wrapped, location{object: "payload." + name}), true
	case wrapped != nil:
		r.loseToken(at.at(name), wrongKind(wrapped))
	}
	if bare != nil && form == nil {
		return read(payload, at), true
	}
	return form, found
}

var accessTokenMembers = []member{{"accountTokens", true}, {"brokerType", true}, {"brokerName", false}, {"expiresInSeconds", false}, {"refreshTokenExpiresInSeconds", false}}

// accessTokens reads the form with access tokens. Nil: nothing of it is usable.
func (r *connectReader) accessTokens(v jsontext.Value, at location) *AccessTokenPayload {
	m := r.members(v, at, accessTokenMembers)
	switch {
	case m[0] == nil:
		r.missing(v, at.at("accountTokens"))
	case m[0].Kind() != '[':
		r.loseToken(at.at("accountTokens"), wrongKind(m[0]))
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
	out.AccountTokens = r.assignUnnamed(out.AccountTokens, at)
	if len(out.AccountTokens) == 0 {
		return nil
	}
	if out.BrokerType = r.broker(m[1], at); out.BrokerType == "" {
		return nil
	}
	return out
}

var accountTokenMembers = []member{{"account", true}, {"accessToken", true}, {"refreshToken", true}, {"tradeToken", true}, {"tokenId", true}}

// accountToken reads one entry. False: nothing of it is usable.
func (r *connectReader) accountToken(v jsontext.Value, at location) (AccountToken, bool) {
	if v.Kind() != '{' {
		if v.Kind() != 'n' {
			r.loseToken(at, wrongKind(v))
		} else {
			r.leaveOut(at, problemEmpty)
		}
		return AccountToken{}, false
	}
	r.inEntry, r.ambiguous = true, false
	defer func() { r.inEntry = false }()
	m := r.members(v, at, accountTokenMembers)
	if r.ambiguous {
		return AccountToken{}, false
	}
	t := AccountToken{
		AccessToken: r.secret(m[1], at.at("accessToken")), RefreshToken: r.secret(m[2], at.at("refreshToken")),
		TradeToken: r.secret(m[3], at.at("tradeToken")), TokenID: r.handle(m[4], at.at("tokenId")),
	}
	if t.AccessToken.Empty() && t.RefreshToken.Empty() && t.TokenID.Empty() {
		r.leaveOut(at, "no token")
		if !t.TradeToken.Empty() {
			r.loseToken(at, "neither accessToken nor refreshToken")
		}
		return t, false
	}
	t.Account = r.account(m[0], at)
	return t, !r.ambiguous
}

var accountMembers = []member{{"accountId", true}, {"accountName", false}}

func (r *connectReader) account(v jsontext.Value, at location) PayloadAccount {
	m := make([]jsontext.Value, len(accountMembers))
	if v.Kind() == '{' {
		m = r.members(v, location{object: at.at("account").String()}, accountMembers)
	} else if v != nil {
		r.leaveOut(at.at("account"), wrongKind(v))
	}
	id, problem := textOf(m[0])
	if problem == "" {
		problem = problemOf(id)
	}
	switch {
	case problem != "":
		r.leaveOut(at.at("account.accountId"), problem)
		id = ""
	case len(id) > maxNameBytes:
		r.leaveOut(at.at("account.accountId"), tooLong(id)+"; a hash stands for it")
	}
	return PayloadAccount{AccountID: BoundedID(id), AccountName: r.display(m[1], at.at("account.accountName"))}
}

// assignUnnamed gives the tokens of entries without an account to the accounts of the
// same login that have none. If the connect names no such account, the entry stays.
func (r *connectReader) assignUnnamed(entries []AccountToken, at location) (kept []AccountToken) {
	named := func(t AccountToken) bool { return t.Account.AccountID != "" }
	for i, t := range entries {
		if named(t) {
			continue
		}
		entries[i].Account = PayloadAccount{}
		switch login := loginOf(t, entries); {
		case len(login) > 0:
			if !t.assignTo(login, entries) {
				r.loseToken(at.at("accountTokens"), "tokens of an account without accountId, beside accounts that have their own")
			}
		case t.RefreshToken.Empty() && slices.ContainsFunc(entries, named):
			r.loseToken(at.at("accountTokens"), "an account without accountId beside others, and without a refresh token that would name it")
		case !slices.Contains(entries[:i], entries[i]):
			kept = append(kept, entries[i])
		}
	}
	return append(kept, slices.DeleteFunc(entries, func(t AccountToken) bool { return !named(t) })...)
}

// loginOf returns the named entries of the login of an entry without an account: those
// with its refresh token or, if it has none, all entries if they are one login.
func loginOf(t AccountToken, entries []AccountToken) (login []*AccountToken) {
	for i := range entries {
		o := &entries[i]
		switch {
		case o.Account.AccountID == "" || !t.RefreshToken.Empty() && o.RefreshToken != t.RefreshToken:
		case len(login) > 0 && o.Account.AccountID != login[0].Account.AccountID && (o.RefreshToken.Empty() || o.RefreshToken != login[0].RefreshToken):
			return nil
		default:
			login = append(login, o)
		}
	}
	return login
}

// assignTo gives the tokens of an entry without an account to the entries of its login,
// and reports whether every token found a place. An access token goes to all of them if
// the login has no other, a token id only to a single account.
func (t AccountToken) assignTo(login []*AccountToken, entries []AccountToken) bool {
	one := !slices.ContainsFunc(login, func(o *AccountToken) bool { return o.Account.AccountID != login[0].Account.AccountID })
	rival := slices.ContainsFunc(entries, func(o AccountToken) bool {
		return o.RefreshToken == t.RefreshToken && !o.AccessToken.Empty() && o.AccessToken != t.AccessToken
	})
	give := func(token secret.Text, at func(*AccountToken) *secret.Text, may bool) (placed bool) {
		if token.Empty() || slices.ContainsFunc(login, func(o *AccountToken) bool { return *at(o) == token }) {
			return true
		}
		if !may || slices.ContainsFunc(login, func(o *AccountToken) bool { return !at(o).Empty() }) {
			return false
		}
		for _, o := range login {
			*at(o) = token
		}
		return true
	}
	access := give(t.AccessToken, func(o *AccountToken) *secret.Text { return &o.AccessToken }, !rival)
	id := give(t.TokenID, func(o *AccountToken) *secret.Text { return &o.TokenID }, one && access)
	trade := give(t.TradeToken, func(o *AccountToken) *secret.Text { return &o.TradeToken }, true)
	return access && id && trade
}

var delayedAuthMembers = []member{{"refreshToken", true}, {"brokerType", true}, {"brokerName", false}, {"refreshTokenExpiresInSeconds", false}}

// delayedAuth reads the form with a refresh token only. Nil: nothing of it is usable.
func (r *connectReader) delayedAuth(v jsontext.Value, at location) *DelayedAuthPayload {
	m := r.members(v, at, delayedAuthMembers)
	out := &DelayedAuthPayload{
		RefreshToken: r.secret(m[0], at.at("refreshToken")), BrokerName: r.display(m[2], at.at("brokerName")),
		RefreshTokenExpiresInSeconds: r.seconds(m[3], at.at("refreshTokenExpiresInSeconds")),
	}
	switch {
	case m[0] == nil:
		r.missing(v, at.at("refreshToken"))
	case out.RefreshToken.Empty() && m[0].Kind() == '"' && len(m[0]) == 2:
		r.leaveOut(at.at("refreshToken"), problemEmpty)
	}
	if out.RefreshToken.Empty() {
		return nil
	}
	if out.BrokerType = r.broker(m[1], at); out.BrokerType == "" {
		return nil
	}
	return out
}

// missing notes that a member that should hold tokens has no value. If the member is
// absent, the tokens may be under another name.
func (r *connectReader) missing(object jsontext.Value, at location) {
	if hasMember(object, at.name) {
		r.leaveOut(at, problemEmpty)
	} else {
		r.loseToken(at, problemEmpty)
	}
}

// broker reads a broker type. Tokens without one can't be used.
func (r *connectReader) broker(v jsontext.Value, at location) string {
	broker, problem := textOf(v)
	if problem == "" {
		problem = problemOf(broker)
	}
	if problem == "" && len(broker) > maxNameBytes {
		problem = tooLong(broker)
	}
	if problem != "" {
		r.loseToken(at.at("brokerType"), problem)
		return ""
	}
	return broker
}

// problemOf returns what is wrong with a broker type or an account id.
func problemOf(value string) string {
	if value == "" {
		return problemEmpty
	}
	if r, found := invisible(value); found {
		return fmt.Sprintf("contains the control or formatting character %U", r)
	}
	return ""
}

func tooLong(value string) string {
	return fmt.Sprintf("%d bytes, at most %d", len(value), maxNameBytes)
}
