package handlers

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// TokenAudit says how answers to token requests are recorded. The zero value
// records none.
type TokenAudit struct {
	Log *audit.Log
	// Required: no token is handed out before its record is stored, for which a
	// request waits as long as Timeout.
	Required bool
	Timeout  time.Duration
	// RequestInfo has the server's word on who asked recorded.
	RequestInfo bool
}

// handedOut records that tokens are about to be given, and then calls answer.
// With an error they must not be.
func (t *TokenService) handedOut(record audit.Record, answer func(error)) {
	record.Action, record.Outcome = audit.HandedOut, audit.OutcomeOK
	if !t.Audit.Required {
		t.Audit.Log.Add(record)
		answer(nil)
		return
	}
	t.Audit.Log.Put(record, t.Audit.Timeout, func(err error) {
		if err != nil {
			t.log.Warn("tokens are not handed out: the audit log can't be written", zap.Error(err))
			err = refuse(events.CodeBusy, "the audit log can't be written; ask again")
		}
		answer(err)
	})
}

// refused records that a request was answered without a token.
func (t *TokenService) refused(record audit.Record, code string) {
	record.Action, record.Outcome = audit.Refused, code
	t.Audit.Log.Add(record)
}

// given notes an account of a grant in the record of a request; code says why
// it was not given, "" that it was.
func given(record *audit.Record, g *store.Grant, code, account string) {
	n := len(record.Grants)
	if n == 0 || record.Grants[n-1].ID != g.ID || record.Grants[n-1].Code != code {
		record.Grants = append(record.Grants, audit.Grant{ID: g.ID, Broker: g.BrokerType, Version: g.Version, Code: code})
		n++
	}
	if account != "" { // else they are not known yet
		record.Grants[n-1].Accounts = append(record.Grants[n-1].Accounts, account)
	}
}

// auditGrant is what a record says of a grant and all its accounts.
func auditGrant(g *store.Grant) []audit.Grant {
	return []audit.Grant{{ID: g.ID, Broker: g.BrokerType, Version: g.Version, Accounts: g.AccountIDs()}}
}

// callerOf returns what a request shows of who sent it. Nothing is taken from
// its body.
func (t *TokenService) callerOf(req micro.Request) *audit.Caller {
	caller := &audit.Caller{Inbox: inboxPrefix(events.CallersReply(req.Reply()))}
	if t.Audit.RequestInfo && caller.Inbox == events.ImportedReply {
		caller.Account, caller.User, caller.Name = requestInfo(req.Headers())
	}
	return caller
}

const (
	// requestInfoHeader is what a server adds to a request that crosses accounts,
	// in place of whatever the client put there.
	requestInfoHeader = "Nats-Request-Info"
	// maxCallerBytes bounds what is recorded of a name or prefix.
	maxCallerBytes = 128
)

// requestInfo reads the server's word on who sent a request. A header that
// comes twice was smuggled past the server, and tells nothing.
func requestInfo(h micro.Headers) (account, user, name string) {
	values := h[requestInfoHeader]
	var info struct {
		Account string `json:"acc"`
		User    string `json:"user"`
		Name    string `json:"name"`
	}
	if len(values) != 1 || json.Unmarshal([]byte(values[0]), &info) != nil {
		return "", "", ""
	}
	return bounded(info.Account), bounded(info.User), bounded(info.Name)
}

// inboxPrefix returns the part of a reply subject that permissions can name:
// what comes before the random parts.
func inboxPrefix(reply string) string {
	if strings.HasPrefix(reply, events.ImportedReply+".") {
		return events.ImportedReply
	}
	at := strings.LastIndexByte(reply, '.')
	if at < 0 {
		return bounded(reply)
	}
	prefix := reply[:at]
	// Clients that share one subscription among their requests have two.
	if at = strings.LastIndexByte(prefix, '.'); at >= 0 && randomToken(prefix[at+1:]) {
		prefix = prefix[:at]
	}
	return bounded(prefix)
}

// randomToken reports whether a part of a subject looks like a NUID, which all
// NATS clients make their inboxes of.
func randomToken(s string) bool {
	return len(s) == 22 && strings.IndexFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
	}) < 0
}

func bounded(s string) string { return s[:min(len(s), maxCallerBytes)] }
