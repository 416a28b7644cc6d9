package meshsim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// event is one change of the book. Exactly one of the pointers is set. The journal is a
// sequence of events, and the book is their sum.
type event struct {
	At        time.Time  `json:"at"`
	Opened    *opened    `json:"opened,omitzero"`
	Connected *Chain     `json:"connected,omitzero"`
	Requested *Request   `json:"requested,omitzero"`
	Reached   *reached   `json:"reached,omitzero"`
	Rotated   *rotated   `json:"rotated,omitzero"`
	Issued    *issued    `json:"issued,omitzero"`
	Resent    *resent    `json:"resent,omitzero"`
	Split     *split     `json:"split,omitzero"`
	Died      *died      `json:"died,omitzero"`
	Answered  *answered  `json:"answered,omitzero"`
	Altered   *altered   `json:"altered,omitzero"`
	Restarted *restarted `json:"restarted,omitzero"`
}

type (
	opened struct {
		Seed Fingerprint `json:"seed"` // of the seed that the tokens derive from
	}
	reached struct {
		Request     int  `json:"request"`
		Replaced    bool `json:"replaced,omitzero"`
		WithinGrace bool `json:"withinGrace,omitzero"`
	}
	rotated struct {
		Request int          `json:"request"`
		Chain   int          `json:"chain"`
		Next    RefreshToken `json:"next"`
	}
	issued struct {
		Request int         `json:"request"`
		Chain   int         `json:"chain"`
		Token   AccessToken `json:"token"`
		EndsOld bool        `json:"endsOld,omitzero"` // ends the earlier access tokens of the account
	}
	resent struct {
		Request int  `json:"request"`
		Alone   bool `json:"alone,omitzero"` // the refresh token without access tokens
	}
	// split moves the accounts of a new chain out of the one that it came from.
	split struct {
		Request int   `json:"request"`
		Chain   Chain `json:"chain"`
	}
	died struct {
		Request int    `json:"request,omitzero"`
		Chain   int    `json:"chain"`
		Why     string `json:"why"`
	}
	answered struct {
		Request     int    `json:"request"`
		Outcome     string `json:"outcome"`
		HTTPStatus  int    `json:"httpStatus,omitzero"`
		Undelivered string `json:"undelivered,omitzero"`
	}
	altered struct {
		Chain       int         `json:"chain"`
		Institution Institution `json:"institution"`
	}
	// restarted ends what was under way when the simulator stopped.
	restarted struct{}
)

type place struct{ chain, index int }

// book is the state of all chains. It is not safe for concurrent use.
type book struct {
	chains    []*Chain
	requests  []*Request
	refresh   map[Fingerprint]place
	access    map[Fingerprint]place
	byAccount map[string]*Chain // the newest chain of an account
	open      map[int]struct{}  // requests without an answer
}

func newBook() *book {
	return &book{refresh: map[Fingerprint]place{}, access: map[Fingerprint]place{}, byAccount: map[string]*Chain{}, open: map[int]struct{}{}}
}

func (b *book) newest(accountID string) (*Chain, error) {
	c, ok := b.byAccount[accountID]
	if !ok {
		return nil, fmt.Errorf("no account %q at the simulator", accountID)
	}
	return c, nil
}

func (b *book) apply(e event) error {
	switch {
	case e.Opened != nil:
	case e.Connected != nil:
		b.connect(*e.Connected)
	case e.Requested != nil:
		q := *e.Requested
		b.requests = append(b.requests, &q)
		b.open[q.ID] = struct{}{}
	case e.Reached != nil:
		q := b.requests[e.Reached.Request-1]
		q.Reached, q.Replaced, q.WithinGrace = true, e.Reached.Replaced, e.Reached.WithinGrace
		if at, ok := b.refresh[q.Token]; ok {
			t := &b.chains[at.chain-1].Refresh[at.index]
			t.Presented = append(t.Presented, q.ID)
			b.chains[at.chain-1].UsedAt = e.At
		}
	case e.Rotated != nil:
		c := b.chains[e.Rotated.Chain-1]
		last := &c.Refresh[len(c.Refresh)-1]
		last.ReplacedAt, last.ReplacedIn = e.At, e.Rotated.Request
		b.refresh[e.Rotated.Next.Fingerprint] = place{c.ID, len(c.Refresh)}
		c.Refresh = append(c.Refresh, e.Rotated.Next)
		b.requests[e.Rotated.Request-1].Rotated = true
	case e.Issued != nil:
		b.issue(e.At, *e.Issued)
	case e.Resent != nil:
		q := b.requests[e.Resent.Request-1]
		q.Resent, q.Issued = true, !e.Resent.Alone
	case e.Split != nil:
		c := e.Split.Chain
		from := b.chains[c.SplitFrom-1]
		from.Accounts = slices.DeleteFunc(slices.Clone(from.Accounts), func(a Account) bool { return c.HasAccount(a.ID) })
		b.connect(c)
		b.requests[e.Split.Request-1].Issued = true
	case e.Died != nil:
		c := b.chains[e.Died.Chain-1]
		c.DiedAt, c.DiedIn, c.DeadBecause = e.At, e.Died.Request, e.Died.Why
		if e.Died.Why == DeadByExpiry || e.Died.Why == DeadByDisuse {
			break
		}
		for i := range c.Access {
			c.Access[i].kill(e.At, e.Died.Why)
		}
	case e.Answered != nil:
		q := b.requests[e.Answered.Request-1]
		q.Outcome, q.HTTPStatus, q.AnsweredAt = e.Answered.Outcome, e.Answered.HTTPStatus, e.At
		q.Undelivered, q.Delivered = e.Answered.Undelivered, e.Answered.Undelivered == ""
		delete(b.open, q.ID)
	case e.Altered != nil:
		b.chains[e.Altered.Chain-1].Institution = e.Altered.Institution
	case e.Restarted != nil:
		for id := range b.open {
			q := b.requests[id-1]
			q.AnsweredAt, q.Undelivered = e.At, "the simulator stopped"
		}
		clear(b.open)
	default:
		return errors.New("an event of unknown kind")
	}
	return nil
}

func (b *book) connect(c Chain) {
	b.chains = append(b.chains, &c)
	for i, t := range c.Refresh {
		b.refresh[t.Fingerprint] = place{c.ID, i}
	}
	for i, t := range c.Access {
		b.access[t.Fingerprint] = place{c.ID, i}
	}
	for _, a := range c.Accounts {
		b.byAccount[a.ID] = &c
	}
}

func (b *book) issue(at time.Time, i issued) {
	c := b.chains[i.Chain-1]
	for j := range c.Access {
		switch t := &c.Access[j]; {
		case i.Token.Interim:
		case t.Interim:
			t.kill(at, "used")
		case (i.EndsOld || c.Institution.RevokeOldAccess) && (t.AccountID == i.Token.AccountID || i.Token.AccountID == ""):
			t.kill(at, "replaced")
		}
	}
	b.access[i.Token.Fingerprint] = place{c.ID, len(c.Access)}
	c.Access = append(c.Access, i.Token)
	if i.Request != 0 {
		b.requests[i.Request-1].Issued = !i.Token.Interim
	}
}

func (a *AccessToken) kill(at time.Time, why string) {
	if a.KilledAt.IsZero() {
		a.KilledAt, a.KilledWhy = at, why
	}
}

// chainOf returns the chain of a token, nil when it is unknown.
func (b *book) chainOf(fp Fingerprint) *Chain {
	if at := cmp.Or(b.refresh[fp], b.access[fp]); at.chain > 0 {
		return b.chains[at.chain-1]
	}
	return nil
}

func (b *book) snapshot(now time.Time) Ledger {
	l := Ledger{At: now, Chains: make([]Chain, len(b.chains)), Requests: make([]Request, len(b.requests))}
	for i, c := range b.chains {
		c := *c
		c.Accounts, c.Access, c.Refresh = slices.Clone(c.Accounts), slices.Clone(c.Access), slices.Clone(c.Refresh)
		behaves := lookUp(c.Institution.Dialects).behaviour(c.Institution)
		if why := c.over(behaves, now); c.Alive() && why != "" {
			c.DiedAt, c.DeadBecause = c.refreshEnd(behaves), why
		}
		l.Chains[i] = c
	}
	for i, q := range b.requests {
		l.Requests[i] = *q
	}
	return l
}
