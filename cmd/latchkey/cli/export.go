package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/direct"
	"github.com/latchkey/latchkey/store/streams"
)

// userExport is all that is kept of a user, without tokens and hashes of them.
type userExport struct {
	User string    `json:"user"`
	At   time.Time `json:"at"`

	Grants []view.UserGrant `json:"grants"`
	// Schedules are the grants' next actions as NATS holds them.
	Schedules []scheduleExport `json:"schedules"`
	// Answers are answers of Mesh on their way into the database, sealed.
	Answers []answerExport `json:"answers"`
	// Refused are the grants that brokers have refused in a row.
	Refused []refusedExport `json:"refused"`
	// Disconnects are what was disconnected, so that no older connect brings it back.
	Disconnects []disconnectExport `json:"disconnects"`
	// DataKeys are the data keys that belong to the user alone.
	DataKeys    []keyExport       `json:"dataKeys"`
	DeadLetters []view.DeadLetter `json:"deadLetters"`
	// Mentioning are dead letters that name no user and mention this one, Unopened those
	// that name no user and can't be opened.
	Mentioning []string `json:"mentionedInDeadLetters"`
	Unopened   []string `json:"unopenedDeadLetters"`
	// Events are the CloudEvents about the user, as subscribers received them.
	Events []json.RawMessage `json:"events"`
	Audit  []audit.Entry     `json:"audit"`
}

type scheduleExport struct {
	Grant   string     `json:"grant"`
	Version int64      `json:"version"`
	DueAt   time.Time  `json:"dueAt"`
	FiresAt *time.Time `json:"firesAt,omitempty"`
}

type answerExport struct {
	Grant    string    `json:"grant"`
	StoredAt time.Time `json:"storedAt"`
	Bytes    int       `json:"bytes"`
}

type refusedExport struct {
	Broker string    `json:"broker"`
	Grant  string    `json:"grant"`
	At     time.Time `json:"at"`
}

// disconnectExport is a disconnect; no broker or account: of all.
type disconnectExport struct {
	Broker  string    `json:"broker,omitempty"`
	Account string    `json:"account,omitempty"`
	At      time.Time `json:"at"`
}

type keyExport struct {
	ID         string    `json:"id"`
	CreatedAt  time.Time `json:"createdAt"`
	SealsUntil time.Time `json:"sealsUntil"`
}

func (a *app) exportCommand() *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print all that is kept of a user, without tokens, as one JSON document",
		Long: `Prints what is kept of a user as one JSON document, for a request of that user:
grants, schedules, answers of Mesh on their way into the database, refusals,
disconnects, data keys, dead letters without their bodies, events and audit records.
It looks wherever "users erase" erases. It prints no token, nothing that is sealed,
and no hash of a token.

Dead letters that name no user are opened, which needs KMS; the document has the ids
of those that mention the user, and of those that can't be opened. Connects that
workers have not handled yet are not in it.

It needs MongoDB and NATS, and is recorded in the audit log. If it can't read a place
it prints nothing.`,
		Example: `  latchkey export --user alice > alice.json`,
		Args:    cobra.NoArgs,
		RunE: a.session(needing((*session).openInstallation, "kms"), func(s *session) error {
			if err := s.openDeadLetters(); err != nil {
				return err
			}
			x := exporter{keptOf: keptOf{s, user}, out: userExport{User: user, At: time.Now().UTC()}}
			if err := x.collect(s.ctx); err != nil {
				return fmt.Errorf("nothing was exported: %w", err)
			}
			if err := s.openAudit(s.db); err != nil {
				return err
			}
			if err := s.audit.record(s.ctx, audit.Record{Action: audit.Exported, Outcome: audit.OutcomeOK, User: user}); err != nil {
				return fmt.Errorf("nothing was exported: %w", err)
			}
			return printJSON(s.out, x.out)
		}),
	}
	a.userFlag(cmd, &user, "the user")
	if err := cmd.MarkFlagRequired("user"); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

// exporter collects what is kept of a user.
type exporter struct {
	keptOf
	stored []*store.Grant
	out    userExport
}

// collect reads every place. Each has its list, if an empty one.
func (x *exporter) collect(ctx context.Context) error {
	o := &x.out
	o.Grants, o.Schedules, o.Answers, o.Refused = []view.UserGrant{}, []scheduleExport{}, []answerExport{}, []refusedExport{}
	o.Disconnects, o.DataKeys, o.DeadLetters = []disconnectExport{}, []keyExport{}, []view.DeadLetter{}
	o.Events, o.Audit = []json.RawMessage{}, []audit.Entry{}
	for _, read := range []func(context.Context) error{
		x.grants, x.schedules, x.answers, x.refused, x.dataKeys, x.letters, x.events, x.auditRecords,
		x.disconnects, // last: it asks for the brokers and accounts that the others name
	} {
		if err := read(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (x *exporter) grants(ctx context.Context) (err error) {
	x.stored, err = x.db.ByUser(ctx, x.user)
	slices.SortFunc(x.stored, func(a, b *store.Grant) int {
		return cmp.Or(a.ConnectedAt.Compare(b.ConnectedAt), cmp.Compare(a.ID, b.ID))
	})
	for _, g := range x.stored {
		x.out.Grants = append(x.out.Grants, view.OfUserGrant(g))
	}
	return err
}

func (x *exporter) schedules(ctx context.Context) error {
	dispatcher, err := x.dispatcher()
	if err != nil {
		return err
	}
	for _, g := range x.stored {
		due, at, found, err := dispatcher.Scheduled(ctx, g.ID)
		var invalid *events.InvalidError
		switch {
		case errors.As(err, &invalid): // no worker wrote it; nothing of it is the user's
		case err != nil:
			return err
		case found:
			s := scheduleExport{Grant: g.ID, Version: due.Version, DueAt: due.DueAt}
			if !at.IsZero() {
				s.FiresAt = &at
			}
			x.out.Schedules = append(x.out.Schedules, s)
		}
	}
	return nil
}

func (x *exporter) answers(ctx context.Context) error {
	subjects := x.cfg.NATS.Subjects()
	stream, err := x.js.Stream(ctx, subjects.RecoveryStream())
	if err != nil {
		return fmt.Errorf("looking for answers: %w", err)
	}
	for _, g := range x.stored {
		for msg, err := range streams.Messages(ctx, stream, subjects.Recovery(g.ID), 1) {
			if err != nil {
				return err
			}
			x.out.Answers = append(x.out.Answers, answerExport{g.ID, msg.Time, len(msg.Data)})
		}
	}
	return nil
}

func (x *exporter) refused(ctx context.Context) error {
	all, err := x.db.Verdicts(ctx)
	for _, v := range all {
		for _, r := range v.Refused {
			if slices.ContainsFunc(x.stored, func(g *store.Grant) bool { return g.ID == r.Grant }) {
				x.out.Refused = append(x.out.Refused, refusedExport{v.Broker, r.Grant, r.At})
			}
		}
	}
	return err
}

func (x *exporter) dataKeys(ctx context.Context) error {
	keys, err := x.db.UserKeys(ctx, x.user)
	for _, key := range keys {
		x.out.DataKeys = append(x.out.DataKeys, keyExport{key.ID, key.CreatedAt, key.SealsUntil})
	}
	return err
}

func (x *exporter) letters(ctx context.Context) error {
	found, err := x.deadLetters(ctx)
	if err != nil {
		return err
	}
	for _, letter := range found.own {
		x.out.DeadLetters = append(x.out.DeadLetters, view.OfDeadLetter(letter))
	}
	x.out.Mentioning, x.out.Unopened = found.mentioning, found.unopened
	return nil
}

func (x *exporter) events(ctx context.Context) error {
	held, err := streams.Lifecycle(ctx, x.js, x.cfg.NATS.Subjects())
	if err != nil {
		return fmt.Errorf("looking for the events: %w", err)
	}
	var all []direct.Message
	for _, subject := range x.eventSubjects() {
		of := func(jetstream.Stream) direct.Reading { return direct.Reading{Subject: subject} }
		for msg, err := range direct.ReadAll(ctx, x.js, held, of) {
			if err != nil {
				return err
			}
			all = append(all, msg)
		}
	}
	slices.SortStableFunc(all, func(a, b direct.Message) int { return a.Time.Compare(b.Time) })
	for _, msg := range all {
		if json.Valid(msg.Data) { // else no worker wrote it
			x.out.Events = append(x.out.Events, bytes.Clone(msg.Data))
		}
	}
	return nil
}

func (x *exporter) auditRecords(ctx context.Context) error {
	err := audit.All(ctx, x.js, x.cfg.NATS.Subjects(), time.Time{}, func(e audit.Entry) error {
		if e.User == x.user || e.DeadLetter != "" && slices.ContainsFunc(x.out.DeadLetters, func(l view.DeadLetter) bool { return l.ID == e.DeadLetter }) {
			x.out.Audit = append(x.out.Audit, e)
		}
		return nil
	})
	off := x.cfg.Audit.Mode == config.AuditOff && errors.Is(err, audit.ErrIncomplete) // streams were added since
	if off || errors.Is(err, audit.ErrNoLog) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return err
}

// disconnects asks for those of the user, and of all brokers and accounts that are known:
// the records are hashes.
func (x *exporter) disconnects(ctx context.Context) error {
	scopes := map[store.Scope]bool{{User: x.user}: true}
	add := func(broker string, accounts ...string) {
		for _, account := range append(accounts, "") {
			scopes[store.Scope{User: x.user, Broker: events.BrokerKey(broker), Account: account}] = true
			scopes[store.Scope{User: x.user, Account: account}] = true
		}
	}
	for _, g := range x.stored {
		add(g.BrokerType, g.AccountIDs()...)
	}
	for _, body := range x.out.Events {
		if e, err := events.DecodeLifecycle(body); err == nil {
			for _, account := range e.Data.Accounts {
				add(e.Data.BrokerType, account.AccountID)
			}
			add(e.Data.BrokerType)
		}
	}
	for _, e := range x.out.Audit {
		for _, g := range e.Grants {
			add(g.Broker, g.Accounts...)
		}
	}
	at, err := x.db.RevokedScopes(ctx, slices.Collect(maps.Keys(scopes)))
	for scope, t := range at {
		x.out.Disconnects = append(x.out.Disconnects, disconnectExport{scope.Broker, scope.Account, t})
	}
	slices.SortFunc(x.out.Disconnects, func(a, b disconnectExport) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Broker, b.Broker), strings.Compare(a.Account, b.Account))
	})
	return err
}
