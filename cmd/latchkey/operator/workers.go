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

// Metadata is what this worker tells about itself in $SRV.INFO.
func Metadata(workerID string) map[string]string { return map[string]string{workerKey: workerID} }

const workerKey = "worker"

// Worker is a worker that answered.
type Worker struct {
	ID      string    `json:"id"`
	Started time.Time `json:"started"`
	// Requests for tokens that it was sent, since it started.
	Requests int `json:"requests"`
	// Refreshed and Failed are those of the last hour.
	Refreshed int `json:"refreshed"`
	Failed    int `json:"failed"`
	// Self: it is the one that serves the page.
	Self bool `json:"self"`
	work Work
}

const (
	// answersWithin is how long workers may take to answer, and quiet how long
	// to wait for one more.
	answersWithin = 2 * time.Second
	quiet         = 300 * time.Millisecond
	maxWorkers    = 1000
)

// findWorkers asks all workers for what they tell in $SRV.STATS. Those that are
// not heard of in time are not among them.
func (p *Page) findWorkers(ctx context.Context) ([]Worker, error) {
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
			return nil, err
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

// next waits for one more answer; nil: there is none.
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
		if json.Unmarshal(e.Data, &work) == nil {
			w.did(work, p.Now())
		}
	}
	return w
}

// did takes in what a worker says about its work.
func (w *Worker) did(work Work, now time.Time) {
	w.work, w.Refreshed, w.Failed = work, 0, 0
	hour := now.Add(-time.Hour).Truncate(slotWidth)
	each(work, func(start time.Time, refreshed, failed int) {
		if !start.Before(hour) {
			w.Refreshed += refreshed
			w.Failed += failed
		}
	})
}

// each calls do for every slot of sane width.
func each(w Work, do func(start time.Time, refreshed, failed int)) {
	if w.Seconds != int(slotWidth/time.Second) {
		return // a release with other slots
	}
	for i := range min(len(w.Refreshed), len(w.Failed), slots) {
		do(w.From.Add(time.Duration(i)*slotWidth), w.Refreshed[i], w.Failed[i])
	}
}

// sum adds up what all workers did, in the slots of now.
func sum(workers []Worker, now time.Time) Work {
	from := now.Truncate(slotWidth).Add(-(slots - 1) * slotWidth)
	total := Work{From: from.UTC(), Seconds: int(slotWidth / time.Second), Refreshed: make([]int, slots), Failed: make([]int, slots)}
	for _, w := range workers {
		each(w.work, func(start time.Time, refreshed, failed int) {
			if i := int(start.Sub(from) / slotWidth); !start.Before(from) && i < slots {
				total.Refreshed[i] += refreshed
				total.Failed[i] += failed
			}
		})
	}
	return total
}
