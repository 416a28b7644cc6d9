package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/events"
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
	since      time.Duration
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
		PreRunE: func(*cobra.Command, []string) error {
			if f.kind != "" && !slices.Contains(events.LifecycleKinds, f.kind) {
				return usage("--kind: must be one of %v", events.LifecycleKinds)
			}
			return checkUser(f.user)
		},
		RunE: a.session((*session).openJetStream, func(s *session) error { return s.tail(f) }),
	})
	cmd.Flags().StringVarP(&f.user, "user", "u", "", "only this user's events")
	cmd.Flags().StringVar(&f.kind, "kind", "", "only events of this kind, such as token.expired")
	complete(cmd, "kind", events.LifecycleKinds...)
	cmd.Flags().DurationVar(&f.since, "since", 0, "start this long ago")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", true, "wait for more events")
	return cmd
}

// readTimeout bounds the wait for an event that the stream holds. It leaves the client
// time to repeat a request whose answer was lost.
const readTimeout = 30 * time.Second

// tail writes events until the context ends or, without --follow, there are no more.
func (s *session) tail(f tailFilter) error {
	subjects := s.cfg.NATS.Subjects()
	stream, err := s.js.Stream(s.ctx, subjects.LifecycleStream())
	if err != nil {
		return fmt.Errorf("looking for the events; has a worker run, with the same nats.url and nats.prefix?: %w", err)
	}
	consumer, err := stream.OrderedConsumer(s.ctx, f.consumer(subjects, time.Now()))
	if err != nil {
		return fmt.Errorf("reading the events: %w", err)
	}
	info, err := consumer.Info(s.ctx)
	if err != nil {
		return fmt.Errorf("reading the events: %w", err)
	}
	if info.NumPending == 0 && !f.follow {
		return nil
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("reading the events: %w", err)
	}
	defer context.AfterFunc(s.ctx, messages.Stop)()
	for {
		waiting, cancel := s.ctx, context.CancelFunc(func() {})
		if !f.follow { // the stream holds another event
			waiting, cancel = context.WithTimeout(s.ctx, readTimeout)
		}
		msg, err := messages.Next(jetstream.NextContext(waiting))
		cancel()
		if s.ctx.Err() != nil || errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the events: %w", err)
		}
		if err := showEvent(s.out, msg.Data(), s.output); err != nil {
			return err
		}
		if meta, err := msg.Metadata(); err == nil && meta.NumPending == 0 && !f.follow {
			return nil
		}
	}
}

func (f tailFilter) consumer(subjects events.Subjects, now time.Time) jetstream.OrderedConsumerConfig {
	c := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy}
	if f.since > 0 || !f.follow {
		c.DeliverPolicy = jetstream.DeliverAllPolicy
	}
	if f.since > 0 {
		from := now.Add(-f.since)
		c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, &from
	}
	for _, kind := range events.LifecycleKinds {
		if f.kind != "" && f.kind != kind {
			continue
		}
		subject := subjects.LifecycleAll(kind)
		if f.user != "" {
			subject = subjects.Lifecycle(kind, f.user)
		}
		c.FilterSubjects = append(c.FilterSubjects, subject)
	}
	return c
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
