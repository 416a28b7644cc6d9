package tokens

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/events"
)

// codeBadReply is the outcome of requests that get no answer, since their reply subject
// is no inbox.
const codeBadReply = "bad_reply"

// inboxes are the only subjects that answers go to. A caller names the reply subject,
// and the worker may publish to subjects that the caller may not.
type inboxes struct {
	events.Inboxes
	// stored are the subject filters of streams that collect inboxes; nil: none are
	// known.
	stored atomic.Pointer[[]string]
	// complaints limits log lines about requests without an inbox.
	complaints rate.Sometimes
}

// collected reports whether a stream would store an answer.
func (in *inboxes) collected(reply string) bool {
	stored := in.stored.Load()
	return stored != nil && slices.ContainsFunc(*stored, func(filter string) bool { return events.FilterMatches(filter, reply) })
}

// InboxCollectors returns the streams of the account that store what is sent to inboxes,
// with the subject filters that do so.
func InboxCollectors(ctx context.Context, js jetstream.JetStream, in events.Inboxes) (map[string][]string, error) {
	found := map[string][]string{}
	list := js.ListStreams(ctx)
	for stream := range list.Info() {
		for _, filter := range stream.Config.Subjects {
			if in.Overlaps(filter) {
				found[stream.Config.Name] = append(found[stream.Config.Name], filter)
			}
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("looking for streams that collect inboxes: %w", err)
	}
	return found, nil
}

// watchInboxesEvery is the interval between searches for streams that collect inboxes.
const watchInboxesEvery = time.Minute

// watchInboxes searches for streams that collect inboxes, now and regularly until stop
// is called. No token is sent to an inbox that a stream collects.
func (t *Service) watchInboxes(nc *nats.Conn) (stop func(), err error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("setting up JetStream: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	told := t.findCollectors(ctx, js, "")
	go func() {
		ticker := time.NewTicker(watchInboxesEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				told = t.findCollectors(ctx, js, told)
			case <-ctx.Done():
				return
			}
		}
	}()
	return cancel, nil
}

// findCollectors searches once, logs a finding that differs from the last, and
// returns it.
func (t *Service) findCollectors(ctx context.Context, js jetstream.JetStream, last string) string {
	limit, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	found, err := InboxCollectors(limit, js, t.inboxes.Inboxes)
	switch {
	case ctx.Err() != nil:
		return last
	case err != nil: // the last finding still holds
		if last != err.Error() {
			t.opts.Log.Warn("it is not known whether a stream stores replies to token requests; permit $JS.API.STREAM.LIST", zap.Error(err))
		}
		return err.Error()
	case len(found) == 0:
		t.inboxes.stored.Store(nil)
		return ""
	}
	names := slices.Sorted(maps.Keys(found))
	filters := slices.Concat(slices.Collect(maps.Values(found))...)
	t.inboxes.stored.Store(&filters)
	finding := fmt.Sprint(found) // which sorts by name
	if finding != last {
		t.opts.Log.Error("streams store replies to token requests: no tokens are sent to those inboxes; take the subjects out of the streams", zap.Strings("streams", names), zap.Strings("subjects", filters))
	}
	return finding
}

// logNoInbox logs that a request stays unanswered. The reply subject could be anything and
// is not logged.
func (t *Service) logNoInbox(endpoint string) {
	t.inboxes.complaints.Do(func() {
		t.opts.Log.Warn("requests that name no inbox as reply subject get no answer; tokens.inbox_prefixes says what an inbox is", zap.String("endpoint", endpoint))
	})
}

// respond answers a request.
func (t *Service) respond(req request, body []byte, header nats.Header) error {
	if !t.inboxes.Contains(req.Reply()) {
		return errors.New("the reply subject is no inbox") // it was checked before
	}
	return t.conn.PublishMsg(&nats.Msg{Subject: req.Reply(), Header: header, Data: body})
}

// userIn returns the last token of a subject, which names a user.
func userIn(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
