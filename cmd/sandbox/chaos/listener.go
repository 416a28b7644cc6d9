package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// listener hears every lifecycle event, as a durable subscriber would.
type listener struct {
	js       jetstream.JetStream
	consumer jetstream.Consumer

	mu      sync.Mutex
	seen    map[string]bool
	byGrant map[string][]events.LifecycleEvent
	repeats int
}

func newListener(js jetstream.JetStream) *listener {
	return &listener{js: js, seen: map[string]bool{}, byGrant: map[string][]events.LifecycleEvent{}}
}

// drain takes in everything that is there. It fails when there is no broker to
// ask.
func (l *listener) drain(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.consumer == nil {
		c, err := l.js.CreateOrUpdateConsumer(ctx, lifecycle, jetstream.ConsumerConfig{Durable: "chaos", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000})
		if err != nil {
			return fmt.Errorf("subscribing to events: %w", err)
		}
		l.consumer = c
	}
	for {
		batch, err := l.consumer.FetchNoWait(1000)
		if err != nil {
			l.consumer = nil
			return fmt.Errorf("receiving events: %w", err)
		}
		n := 0
		for m := range batch.Messages() {
			n++
			e, err := events.DecodeLifecycle(m.Data())
			switch {
			case err != nil: // junk, which subscribers pass over
			case l.seen[e.ID]:
				l.repeats++
			default:
				l.seen[e.ID] = true
				l.byGrant[e.Data.GrantID] = append(l.byGrant[e.Data.GrantID], e)
			}
			if err := m.Ack(); err != nil {
				return fmt.Errorf("acknowledging an event: %w", err)
			}
		}
		if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, jetstream.ErrNoMessages) {
			l.consumer = nil
			return fmt.Errorf("receiving events: %w", err)
		}
		if n == 0 {
			return nil
		}
	}
}

// forget makes the listener subscribe anew; the stream will be another one.
func (l *listener) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.consumer = nil
}

func (l *listener) grants() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.byGrant)
}

// readers ask for tokens of random users all the time and check what they get.
type readers struct {
	latchkey *client.Client
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu                         sync.Mutex
	given, refused, unanswered int
	bad                        map[string]int
}

const readerCount = 4

func startReaders(r *run) (*readers, error) {
	latchkey, err := client.New(r.nc, client.Once())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &readers{latchkey: latchkey, cancel: cancel, bad: map[string]int{}}
	for i := range readerCount {
		a.wg.Go(func() {
			rng := rand.New(rand.NewPCG(r.Seed, uint64(i)+100))
			for ctx.Err() == nil {
				a.ask(ctx, r, user(rng.IntN(r.Grants)))
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	return a, nil
}

func (a *readers) ask(ctx context.Context, r *run, user string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	reply, err := a.latchkey.Tokens(ctx, events.TokenRequest{UserID: user})
	a.mu.Lock()
	defer a.mu.Unlock()
	var refused *client.RefusedError
	var invalid *events.InvalidError
	switch {
	case errors.As(err, &refused):
		a.refused++
	case errors.As(err, &invalid):
		a.bad["undecodable"]++
	case err != nil:
		a.unanswered++ // nobody there to answer
	}
	for _, t := range reply.AccessTokens {
		a.given++
		if ok, why := r.stack.Mesh.AccessTokenState(t.AccessToken); !ok {
			a.bad[why]++
		}
	}
}

func (a *readers) stop() {
	a.cancel()
	a.wg.Wait()
}
