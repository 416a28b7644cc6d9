package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/direct"
	"github.com/latchkey/latchkey/store/streams"
)

func (a *app) eventsCommand() *cobra.Command {
	return group("events", "Show what happened to grants", a.tailEvents())
}

// tailFilter selects events.
type tailFilter struct {
	user, kind string
	since      time.Time
	follow     bool
	look       time.Duration // between looks for streams
}

func (a *app) tailEvents() *cobra.Command {
	f := tailFilter{look: lookEvery}
	cmd := withOutput(&cobra.Command{
		Use:   "tail",
		Short: "Show lifecycle events as they happen",
		Long: `Shows lifecycle events until ctrl-C, from now on or, with --since,
from a time in the past. Subscribers still receive them. Events hold no tokens.

With --output json every line is a CloudEvent, as subscribers receive it.`,
		Example: `  latchkey events tail
  latchkey events tail --user alice --since 24h --follow=false
  latchkey events tail --kind token.expired --output json | jq .data.reason`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openJetStream, func(s *session) error { return s.tail(f) }),
	})
	a.userFlag(cmd, &f.user, "only this user's events")
	choiceFlag(cmd, &f.kind, "kind", "only events of this kind", events.LifecycleKinds)
	timeFlag(cmd, &f.since, "since", "start then")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", true, "wait for more events")
	return cmd
}

// lookEvery is how often tail looks for streams that were added or made anew.
const lookEvery = 30 * time.Second

// tail writes events until the context ends or, without --follow, there are no more.
func (s *session) tail(f tailFilter) error {
	subjects := s.cfg.NATS.Subjects()
	var all []jetstream.Stream
	left := map[string]*tailed{}
	for first := true; ; first = false {
		found, err := streams.Lifecycle(s.ctx, s.js, subjects)
		switch {
		case err == nil:
			all = found
		case first && errors.Is(err, jetstream.ErrStreamNotFound):
			return fmt.Errorf("looking for the events; has a worker run, with the same nats.url and nats.prefix?: %w", err)
		case first:
			return fmt.Errorf("looking for the events: %w", err)
		}
		for _, stream := range found {
			info := stream.CachedInfo()
			if t := left[info.Config.Name]; t == nil || !t.made.Equal(info.Created) {
				left[info.Config.Name] = &tailed{f.reading(subjects, info.State.LastSeq, !first), info.Created}
			}
		}
		within, cancel := context.WithTimeout(s.ctx, f.look)
		err = s.showAll(within, all, left)
		look := within.Err() != nil && s.ctx.Err() == nil
		cancel()
		switch {
		case errors.Is(err, context.Canceled):
			return nil
		case !look:
			return err
		}
	}
}

// tailed is what is left to read of a stream that was made at a time.
type tailed struct {
	direct.Reading
	made time.Time
}

// showAll shows what is left to read.
func (s *session) showAll(ctx context.Context, all []jetstream.Stream, left map[string]*tailed) error {
	of := func(stream jetstream.Stream) direct.Reading { return left[stream.CachedInfo().Config.Name].Reading }
	for msg, err := range direct.ReadAll(ctx, s.js, all, of) {
		if err != nil {
			return fmt.Errorf("showing events: %w", err)
		}
		if err := s.showEvent(msg.Data); err != nil {
			return err
		}
		t := left[msg.Stream]
		t.From, t.Since = msg.Sequence+1, time.Time{}
	}
	return nil
}

// reading selects events in a stream that ends with last; added: all of them, since the stream
// is a new one.
func (f tailFilter) reading(subjects events.Subjects, last uint64, added bool) direct.Reading {
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
	case added:
	case !f.since.IsZero():
		r.Since = f.since
	case f.follow:
		r.From = last + 1
	}
	return r
}

// showEvent shows the body of a message: as the CloudEvent that it is, in one line, or as
// a line of text.
func (s *session) showEvent(body []byte) error {
	e, err := events.DecodeLifecycle(body)
	if err != nil {
		_, err = fmt.Fprintln(s.stderr, "latchkey: an event that no worker wrote:", printable(err.Error()))
		return err
	}
	if s.output == asJSON {
		return printJSONLine(s.out, json.RawMessage(body))
	}
	line := fmt.Sprintf("%s  %s  %s  version %d", e.Data.GrantID, e.Data.BrokerType, e.Data.UserID, e.Data.Version)
	if e.Data.Reason != "" {
		line += "  " + string(e.Data.Reason)
	}
	if e.Data.ExpiresAt != nil {
		line += "  until " + stamp(e.Data.ExpiresAt)
	}
	_, err = fmt.Fprintf(s.out, "%s  %s  %s\n", stamp(&e.Time), paint(s.out, "KIND", pad(e.Kind, 15)), printable(line))
	return err
}
