package tokens

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

// Audit says how answers to token requests are recorded. The zero value records none.
type Audit struct {
	Log *audit.Log
	// Required: no token is handed out before its record is stored. A request waits
	// for that as long as Timeout.
	Required bool
	Timeout  time.Duration
	// RequestInfo records what the NATS server says about the caller.
	RequestInfo bool
}

// recordHandOut records that tokens are about to be handed out, and then calls answer.
// With an error they must not be.
func (t *Service) recordHandOut(record audit.Record, answer func(error)) {
	record.Action, record.Outcome = audit.HandedOut, audit.OutcomeOK
	if !t.opts.Audit.Required {
		t.opts.Audit.Log.Add(record)
		answer(nil)
		return
	}
	t.opts.Audit.Log.Put(record, t.opts.Audit.Timeout, func(err error) {
		if err != nil {
			t.opts.Log.Warn("tokens are not handed out: the audit log can't be written", zap.Error(err))
			err = refuse(events.CodeBusy, "the audit log can't be written; ask again")
		}
		answer(err)
	})
}

// recordRefusal records that a request was answered without a token.
func (t *Service) recordRefusal(record audit.Record, code string) {
	record.Action, record.Outcome = audit.Refused, code
	t.opts.Audit.Log.Add(record)
}

// addAccount adds an account of a grant to the record of a request. code says why it
// got no token; "": it got one.
func addAccount(record *audit.Record, g *store.Grant, code, account string) {
	n := len(record.Grants)
	if n == 0 || record.Grants[n-1].ID != g.ID || record.Grants[n-1].Code != code {
		view := g.AuditView(nil)
		view.Code = code
		record.Grants = append(record.Grants, view)
		n++
	}
	if account != "" { // else the accounts are not known yet
		record.Grants[n-1].Accounts = append(record.Grants[n-1].Accounts, account)
	}
}

// callerOf returns what a request says about its sender, apart from the body.
func (t *Service) callerOf(req request) *audit.Caller {
	caller := &audit.Caller{Inbox: inboxPrefix(events.ReplyInbox(req.Reply()))}
	if t.opts.Audit.RequestInfo && caller.Inbox == events.ImportedReply {
		caller.Account, caller.User, caller.Name = requestInfo(req.Headers())
	}
	return caller
}

const (
	// requestInfoHeader is added by the server to a request that crosses accounts. It
	// replaces what the client put there.
	requestInfoHeader = "Nats-Request-Info"
	// maxCallerBytes bounds a recorded name or prefix.
	maxCallerBytes = 128
)

// requestInfo reads what the server says about the sender of a request. A header that
// comes twice was smuggled past the server, and is ignored.
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

// inboxPrefix returns the part of a reply subject before the random parts, which
// permissions can name.
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

// randomToken reports whether a part of a subject looks like a NUID, of which all NATS
// clients make their inboxes.
func randomToken(s string) bool {
	return len(s) == 22 && strings.IndexFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
	}) < 0
}

func bounded(s string) string { return s[:min(len(s), maxCallerBytes)] }
