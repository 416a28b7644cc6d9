package operator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Metadata returns the metadata of a worker's NATS service.
func Metadata(workerID string) map[string]string { return map[string]string{workerKey: workerID} }

const workerKey = "worker"

// Worker is a worker that answered.
type Worker struct {
	ID      string    `json:"id"`
	Started time.Time `json:"started"`
	// Requests counts the token requests that it received since it started.
	Requests int `json:"requests"`
	Work
	// Self: it serves the page.
	Self bool `json:"self"`
}

const (
	// answersWithin is how long workers may take to answer, and quiet how long to wait
	// for another answer.
	answersWithin = 2 * time.Second
	quiet         = 300 * time.Millisecond
	maxWorkers    = 1000
)

// findWorkers requests $SRV.STATS of all workers, and returns those that answer in time.
func (p *Page) findWorkers(ctx context.Context) ([]Worker, error) {
	ctx, stop := p.refusals.watch(ctx, "$SRV.STATS.")
	defer stop()
	inbox := p.NATS.NewInbox()
	answers, err := p.NATS.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("asking for workers: %w", err)
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := p.NATS.PublishRequest("$SRV.STATS."+p.Service, inbox, nil); err != nil {
		return nil, fmt.Errorf("asking for workers: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	found := []Worker{}
	for len(found) < maxWorkers {
		msg, err := next(ctx, answers, len(found) > 0)
		if err != nil {
			return nil, whyNot(ctx, err)
		}
		if msg == nil {
			break
		}
		var stats micro.Stats
		if json.Unmarshal(msg.Data, &stats) != nil {
			continue // not from a worker
		}
		found = append(found, p.worker(stats))
	}
	if !slices.ContainsFunc(found, func(w Worker) bool { return w.Self }) {
		return nil, errors.New("asking for workers: not even this one answers; may it publish to $SRV.STATS.*?")
	}
	slices.SortFunc(found, func(a, b Worker) int { return cmp.Or(cmp.Compare(a.ID, b.ID), a.Started.Compare(b.Started)) })
	return found, nil
}

// next waits for another answer; nil: there is none.
func next(ctx context.Context, answers *nats.Subscription, more bool) (*nats.Msg, error) {
	if more {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, quiet)
		defer cancel()
	}
	msg, err := answers.NextMsgWithContext(ctx)
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("asking for workers: %w", err)
	}
	return msg, nil
}

func (p *Page) worker(s micro.Stats) Worker {
	w := Worker{ID: cmp.Or(s.Metadata[workerKey], s.ID), Started: s.Started, Self: s.Metadata[workerKey] == p.WorkerID}
	for _, e := range s.Endpoints {
		w.Requests += e.NumRequests
		var work Work
		if json.Unmarshal(e.Data, &work) == nil { // otherwise it has none, or those of another release
			w.Work = work
		}
	}
	return w
}
