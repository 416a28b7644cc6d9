package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/events"
)

func (a *app) eventsCommand() *cobra.Command {
	return group("events", "Look at what happened to grants", a.tailEvents())
}

// tailView is what is shown of a lifecycle event.
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

// tailFilter is which events are shown.
type tailFilter struct {
	user, kind string
	since      time.Duration
	follow     bool
}

func (a *app) tailEvents() *cobra.Command {
	var f tailFilter
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show lifecycle events as they happen",
		Long: `Shows the events of the lifecycle stream, from a time in the past or from now on,
until ctrl-C. Takes nothing away from subscribers. Events hold no tokens.`,
		Example: `  latchkey events tail
  latchkey events tail --user alice --since 24h --follow=false
  latchkey events tail --kind token.expired --output json | jq .reason`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&f.user, "user", "u", "", "only this user's")
	cmd.Flags().StringVar(&f.kind, "kind", "", "only of this kind, such as token.expired")
	complete(cmd, "kind", events.LifecycleKinds...)
	cmd.Flags().DurationVar(&f.since, "since", 0, "begin this far back")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", true, "wait for more")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.user != "" {
			if err := events.CheckUserID(f.user); err != nil {
				return &exitError{ExitUsage, fmt.Errorf("--user: %w", err)}
			}
		}
		if f.kind != "" && !slices.Contains(events.LifecycleKinds, f.kind) {
			return &exitError{ExitUsage, fmt.Errorf("--kind: must be one of %v", events.LifecycleKinds)}
		}
		return a.with(cmd, func(s *session) error {
			js, err := s.streams()
			if err != nil {
				return err
			}
			return tail(s.ctx, js, s.cfg.NATS.Subjects(), f, *output, s.out)
		})
	}
	return cmd
}

// readTimeout bounds the wait for an event that is there. It leaves the client time
// to ask again where an answer was lost.
const readTimeout = 30 * time.Second

// tail writes events until ctx ends or, not following, there are no more.
func tail(ctx context.Context, js jetstream.JetStream, subjects events.Subjects, f tailFilter, output format, out io.Writer) error {
	stream, err := js.Stream(ctx, subjects.LifecycleStream())
	if err != nil {
		return fmt.Errorf("looking for the events; has a worker run, with the same nats.url and nats.prefix?: %w", err)
	}
	consumer, err := stream.OrderedConsumer(ctx, f.consumer(subjects, time.Now()))
	if err != nil {
		return fmt.Errorf("reading the events: %w", err)
	}
	info, err := consumer.Info(ctx)
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
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		waiting, cancel := ctx, context.CancelFunc(func() {})
		if !f.follow { // then there is one that comes
			waiting, cancel = context.WithTimeout(ctx, readTimeout)
		}
		msg, err := messages.Next(jetstream.NextContext(waiting))
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the events: %w", err)
		}
		if err := showEvent(out, msg.Data(), output); err != nil {
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

// showEvent writes one event as a line.
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
	line := fmt.Sprintf("%s  %-15s  %s  %s  %s  version %s", stamp(&v.Time), v.Kind, v.Grant, v.Broker, v.User, strconv.FormatInt(v.Version, 10))
	if v.Reason != "" {
		line += "  " + string(v.Reason)
	}
	if v.ExpiresAt != nil {
		line += "  until " + stamp(v.ExpiresAt)
	}
	_, err = fmt.Fprintln(out, printable(line))
	return err
}
