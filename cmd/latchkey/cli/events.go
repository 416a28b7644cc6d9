package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/direct"
)

func (a *app) eventsCommand() *cobra.Command {
	return group("events", "Show what happened to grants", a.tailEvents())
}

// tailView shows a lifecycle event.
type tailView struct {
	Time      time.Time     `json:"time"`
	Kind      string        `json:"kind"`
	User      string        `json:"user"`
	Grant     string        `json:"grant"`
	Broker    string        `json:"broker"`
	Version   int64         `json:"version"`
	Reason    events.Reason `json:"reason,omitempty"`
	ExpiresAt *time.Time    `json:"expiresAt,omitempty"`
}

// tailFilter selects events.
type tailFilter struct {
	user, kind string
	since      time.Time
	follow     bool
}

func (a *app) tailEvents() *cobra.Command {
	var f tailFilter
	cmd := withOutput(&cobra.Command{
		Use:   "tail",
		Short: "Show lifecycle events as they happen",
		Long: `Shows the events of the lifecycle stream until ctrl-C, from now on or, with --since,
from a time in the past. Subscribers still receive them. Events hold no tokens.`,
		Example: `  latchkey events tail
  latchkey events tail --user alice --since 24h --follow=false
  latchkey events tail --kind token.expired --output json | jq .reason`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openJetStream, func(s *session) error { return s.tail(f) }),
	})
	a.userFlag(cmd, &f.user, "only this user's events")
	choiceFlag(cmd, &f.kind, "kind", "only events of this kind", events.LifecycleKinds)
	timeFlag(cmd, &f.since, "since", "start then")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", true, "wait for more events")
	return cmd
}

// tail writes events until the context ends or, without --follow, there are no more.
func (s *session) tail(f tailFilter) error {
	subjects := s.cfg.NATS.Subjects()
	stream, err := s.js.Stream(s.ctx, subjects.LifecycleStream())
	if err != nil {
		return fmt.Errorf("looking for the events; has a worker run, with the same nats.url and nats.prefix?: %w", err)
	}
	for msg, err := range direct.Read(s.ctx, s.js, stream, f.reading(subjects, stream.CachedInfo().State.LastSeq)) {
		switch {
		case errors.Is(err, context.Canceled):
			return nil
		case err != nil:
			return fmt.Errorf("showing events: %w", err)
		}
		if err := showEvent(s.out, msg.Data, s.output); err != nil {
			return err
		}
	}
	return nil
}

// reading selects events in a stream that ends with last.
func (f tailFilter) reading(subjects events.Subjects, last uint64) direct.Reading {
	r := direct.Reading{Subject: subjects.LifecycleEvents(), Follow: f.follow}
	switch {
	case f.kind != "" && f.user != "":
		r.Subject = subjects.Lifecycle(f.kind, f.user)
	case f.kind != "":
		r.Subject = subjects.LifecycleAll(f.kind)
	case f.user != "":
		r.Subject = subjects.LifecycleOf(f.user)
	}
	switch {
	case !f.since.IsZero():
		r.Since = f.since
	case f.follow:
		r.From = last + 1
	}
	return r
}

func showEvent(out io.Writer, body []byte, output format) error {
	e, err := events.DecodeLifecycle(body)
	if err != nil {
		_, err = fmt.Fprintln(out, "an event that no worker wrote:", printable(err.Error()))
		return err
	}
	v := tailView{
		Time: e.Time, Kind: e.Kind, User: e.Data.UserID, Grant: e.Data.GrantID, Broker: e.Data.BrokerType,
		Version: e.Data.Version, Reason: e.Data.Reason, ExpiresAt: e.Data.ExpiresAt,
	}
	if output == asJSON {
		return json.NewEncoder(out).Encode(v)
	}
	line := fmt.Sprintf("%s  %-15s  %s  %s  %s  version %d", stamp(&v.Time), v.Kind, v.Grant, v.Broker, v.User, v.Version)
	if v.Reason != "" {
		line += "  " + string(v.Reason)
	}
	if v.ExpiresAt != nil {
		line += "  until " + stamp(v.ExpiresAt)
	}
	_, err = fmt.Fprintln(out, printable(line))
	return err
}
