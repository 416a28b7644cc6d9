package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// readers ask for tokens of random users all the time and check what they get.
type readers struct {
	latchkey *client.Client
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu                  sync.Mutex
	given               int
	refused, unanswered []time.Time
	bad                 []badToken
}

// badToken is a token that was handed out though it was not valid.
type badToken struct {
	at  time.Time
	why string
}

const (
	readerCount = 4
	askWithin   = tokensTimeout + 2*time.Second
)

func startReaders(r *run) (*readers, error) {
	latchkey, err := client.New(r.nc, client.Once())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &readers{latchkey: latchkey, cancel: cancel}
	for i := range readerCount {
		a.wg.Go(func() {
			rng := rand.New(rand.NewPCG(r.Seed, uint64(i)+100))
			for ctx.Err() == nil {
				_ = a.ask(ctx, r, events.TokenRequest{UserID: user(rng.IntN(r.Grants))})
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	return a, nil
}

// ask asks once, counts the answer and returns why there were no tokens.
func (a *readers) ask(ctx context.Context, r *run, request events.TokenRequest) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	asked := time.Now()
	reply, err := a.latchkey.Tokens(ctx, request)
	a.mu.Lock()
	defer a.mu.Unlock()
	var refused *client.RefusedError
	var invalid *events.InvalidError
	switch {
	case errors.As(err, &refused):
		a.refused = append(a.refused, asked)
	case errors.As(err, &invalid):
		a.bad = append(a.bad, badToken{asked, "undecodable"})
	case err != nil:
		a.unanswered = append(a.unanswered, asked) // nobody there to answer
	}
	for _, t := range reply.AccessTokens {
		a.given++
		if ok, why := r.stack.Mesh.AccessTokenState(t.AccessToken); !ok {
			a.bad = append(a.bad, badToken{asked, why})
		}
	}
	return err
}

func (a *readers) stop() {
	a.cancel()
	a.wg.Wait()
}
