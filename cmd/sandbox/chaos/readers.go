package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/events/secret"
)

// readers request tokens of random users all the time and check them.
type readers struct {
	once, patient *client.Client // patient repeats a request that is refused for the moment
	cancel        context.CancelFunc
	wg            sync.WaitGroup

	mu                  sync.Mutex
	given, reports      int
	refused, unanswered []time.Time
	bad                 []badToken
}

type badToken struct {
	// at is when it was requested, sent when the worker sent it at the earliest. All workers
	// know what reached any of them before known.
	at, sent, known time.Time
	token           secret.Text
	why             string
	reported        bool // it is the answer to a report that it was refused
}

const (
	readerCount = 4
	askWithin   = tokensTimeout + 2*time.Second
	// onTheWay is how long an answer of a worker may travel on a busy machine. A token has to
	// be valid when the worker sends it.
	onTheWay = time.Second
	// fromMemory is how long a worker may give an older access token after another worker
	// received the newer one (tokens.cache_age).
	fromMemory = 5 * time.Second
)

func startReaders(r *run) (*readers, error) {
	once, err := client.New(r.nc, client.Once())
	if err != nil {
		return nil, err
	}
	patient, err := client.New(r.nc)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &readers{once: once, patient: patient, cancel: cancel}
	for i := range readerCount {
		a.wg.Go(func() {
			rng := rand.New(rand.NewPCG(r.Seed, uint64(i)+100))
			for ctx.Err() == nil {
				a.use(ctx, r, once, events.TokenRequest{UserID: user(rng.IntN(r.Grants))})
				_ = pause.For(ctx, 50*time.Millisecond) // the loop sees that ctx has ended
			}
		})
	}
	return a, nil
}

// use requests tokens, and reports those that institutions refuse.
func (a *readers) use(ctx context.Context, r *run, with *client.Client, request events.TokenRequest) {
	refused, err := a.request(ctx, r, with, request, nil)
	if err != nil || len(refused) == 0 {
		return
	}
	for _, t := range refused {
		if of := (events.RefusedToken{GrantID: t.GrantID, Version: t.Version}); !slices.Contains(request.Refused, of) {
			request.Refused = append(request.Refused, of)
		}
	}
	_, _ = a.request(ctx, r, with, request, refused) // it is counted
}

// ask requests tokens, counts the answer and returns why there were none.
func (a *readers) ask(ctx context.Context, r *run, with *client.Client, request events.TokenRequest) error {
	_, err := a.request(ctx, r, with, request, nil)
	return err
}

type refusedToken struct {
	token   secret.Text
	GrantID string
	Version int64
}

// request requests tokens, counts the answer, and returns the tokens in it that institutions
// refuse. reported are those that the request reports.
func (a *readers) request(ctx context.Context, r *run, with *client.Client, request events.TokenRequest, reported []refusedToken) (bad []refusedToken, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	began := time.Now()
	reply, err := with.Tokens(ctx, request)
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	var refused *client.RefusedError
	var invalid *events.InvalidError
	switch {
	case errors.As(err, &refused):
		a.refused = append(a.refused, began)
	case errors.As(err, &invalid):
		a.bad = append(a.bad, badToken{at: began, why: "undecodable"})
	case err != nil:
		a.unanswered = append(a.unanswered, began) // nobody there to answer
	}
	a.reports += len(request.Refused)
	sent := now.Add(-min(now.Sub(began), r.patient(onTheWay)))
	for i, t := range reply.AccessTokens {
		a.given++
		if ok, why := r.stack.Mesh.AccessTokenStateAt(t.AccessToken, sent); !ok {
			of := reply.Expiries[i]
			again := slices.ContainsFunc(reported, func(x refusedToken) bool { return x.token.Equal(t.AccessToken) }) && isRenewed(reply, of.GrantID)
			a.bad = append(a.bad, badToken{began, sent, sent.Add(-fromMemory - r.patient(onTheWay)), t.AccessToken, fmt.Sprintf("%s's for %s, %s after it was asked for: %s",
				t.BrokerType, request.UserID, now.Sub(began).Round(time.Millisecond), why), again})
			bad = append(bad, refusedToken{t.AccessToken, of.GrantID, of.Version})
		}
	}
	return bad, err
}

// isRenewed reports whether a grant was refreshed because of a report.
func isRenewed(reply events.TokenReply, grantID string) bool {
	return slices.ContainsFunc(reply.Refused, func(of events.RefusedResult) bool {
		return of.GrantID == grantID && of.Outcome == events.RefusedRefreshed
	})
}

func (a *readers) stop() {
	a.cancel()
	a.wg.Wait()
}
