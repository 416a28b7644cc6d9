package handlers

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
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/events"
)

// codeBadReply stands for requests that get no answer, because they name no
// inbox to answer to.
const codeBadReply = "bad_reply"

// inboxes are where answers go: a caller names the reply subject, and the
// worker may publish to more subjects than the caller.
type inboxes struct {
	events.Inboxes
	// stored are the subject filters of streams that collect inboxes. Nil: it is
	// not known that there are any.
	stored atomic.Pointer[[]string]
	// complaints bounds how often the log tells of requests without an inbox.
	complaints rate.Sometimes
}

// collected reports whether a stream would store an answer.
func (in *inboxes) collected(reply string) bool {
	stored := in.stored.Load()
	if stored == nil {
		return false
	}
	for _, filter := range *stored {
		if events.Collects(filter, reply) {
			return true
		}
	}
	return false
}

// InboxCollectors returns the streams of the account that collect what is sent
// to inboxes, each with the subject filters that do.
func InboxCollectors(ctx context.Context, js jetstream.JetStream, in events.Inboxes) (map[string][]string, error) {
	found := map[string][]string{}
	list := js.ListStreams(ctx)
	for stream := range list.Info() {
		for _, filter := range stream.Config.Subjects {
			if in.Overlap(filter) {
				found[stream.Config.Name] = append(found[stream.Config.Name], filter)
			}
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("looking for streams that collect inboxes: %w", err)
	}
	return found, nil
}

// watchInboxesEvery is how often streams that collect inboxes are looked for.
const watchInboxesEvery = time.Minute

// watchInboxes looks for streams that collect inboxes, at once and again until
// stop is called. No token is sent to an inbox that is collected.
func (t *TokenService) watchInboxes(nc *nats.Conn) (stop func(), err error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("setting up JetStream: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	told := t.lookForCollectors(ctx, js, "")
	go func() {
		ticker := time.NewTicker(watchInboxesEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				told = t.lookForCollectors(ctx, js, told)
			case <-ctx.Done():
				return
			}
		}
	}()
	return cancel, nil
}

// lookForCollectors looks once, logs a finding that differs from the last, and
// returns it.
func (t *TokenService) lookForCollectors(ctx context.Context, js jetstream.JetStream, last string) string {
	limit, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	found, err := InboxCollectors(limit, js, t.inboxes.Inboxes)
	switch {
	case ctx.Err() != nil:
		return last
	case err != nil: // what was found before still holds
		if last != err.Error() {
			t.log.Warn("it is not known whether a stream stores replies to token requests; permit $JS.API.STREAM.LIST", zap.Error(err))
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
		t.log.Error("streams store replies to token requests: no tokens are sent to those inboxes; take the subjects out of the streams", zap.Strings("streams", names), zap.Strings("subjects", filters))
	}
	return finding
}

// noInbox leaves a request unanswered. Its reply subject is whatever the caller
// wanted, and is not logged.
func (t *TokenService) noInbox(endpoint string) {
	t.requests.WithLabelValues(codeBadReply).Inc()
	t.inboxes.complaints.Do(func() {
		t.log.Warn("requests that name no inbox as reply subject get no answer; tokens.inbox_prefixes says what an inbox is", zap.String("endpoint", endpoint))
	})
}

// respond answers a request past micro, which reads a request's state when its
// handler has returned; ours answer later.
func (t *TokenService) respond(req micro.Request, body []byte, header nats.Header) error {
	if !t.inboxes.Take(req.Reply()) {
		return errors.New("the reply subject is no inbox") // it was looked at before
	}
	return t.conn.PublishMsg(&nats.Msg{Subject: req.Reply(), Header: header, Data: body})
}

// userIn returns the last token of a subject, which names a user.
func userIn(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
