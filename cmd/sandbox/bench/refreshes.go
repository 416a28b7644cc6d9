package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// refreshes compares a worker with bare loops that do the minimum of a refresh.
func (s *site) refreshes(ctx context.Context) (rows []Row, err error) {
	loops, err := s.loops(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, loops.close(ctx)) }()

	latchkey := func(n int) (float64, error) { return s.refresh(ctx, n) }
	bare := func(n int) (float64, error) { return loops.refresh(ctx, n, false) }
	leased := func(n int) (float64, error) { return loops.refresh(ctx, n, true) }
	n, err := s.warmUp(s.Refreshes, s.Longest, latchkey, bare, leased)
	if err != nil {
		return nil, err
	}
	var rates, bareRates, leasedRates []float64
	for round := range s.Rounds {
		for _, m := range []struct {
			what string
			do   func(int) (float64, error)
			to   *[]float64
		}{{"a worker", latchkey, &rates}, {"a bare loop", bare, &bareRates}, {"a bare loop with leases", leased, &leasedRates}} {
			s.say("refreshing %d grants, round %d of %d: %s", n, round+1, s.Rounds, m.what)
			rate, err := m.do(n)
			if err != nil {
				return nil, err
			}
			*m.to = append(*m.to, rate)
		}
	}
	s.capacity = median(rates)
	method := fmt.Sprintf("a backlog of %s lies in the stream; from when it may be read until the last token.refreshed; %d at once; Mesh answers at once", sizeText(n, s.Refreshes), s.cfg.Refresh.Concurrency)
	return []Row{
		{
			Figure: "refreshes", Unit: "refreshes/s", Values: rates, Baseline: bareRates, Method: method,
			Against: "a loop of as many at once: the same call, the same replacement of a document of the same bytes", Target: new(AtLeast(0.8)),
		},
		{
			Figure: "refreshes, to a loop with leases", Unit: "refreshes/s", Values: rates, Baseline: leasedRates, Method: "the same refreshes",
			Against: againstLeases, Target: new(AtLeast(0.8)),
		},
	}, nil
}

const againstLeases = "the same loop, with a lease taken before (findAndModify): the least that never spends a refresh token twice"

// loops are the bare loops. They have the worker's client and settings, and a database of
// their own with the same indexes.
type loops struct {
	*site
	store *store.Store
	name  string
}

func (s *site) loops(ctx context.Context) (*loops, error) {
	cfg := s.cfg.MongoDB
	cfg.Database += "_bare"
	db, err := worker.OpenStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	l := &loops{site: s, store: db, name: cfg.Database}
	if err = db.Ensure(ctx); err == nil {
		err = s.stack.Ready(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.close(ctx))
	}
	return l, nil
}

func (l *loops) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	return errors.Join(l.client.Database(l.name).Drop(ctx), l.store.Close(ctx))
}

// refresh does n refreshes and returns how many a second. The documents to write are made
// before.
func (l *loops) refresh(ctx context.Context, n int, leased bool) (rate float64, err error) {
	grants, err := l.grants(ctx, n, func(int) time.Time { return time.Now() })
	if err != nil {
		return 0, err
	}
	if err := l.insert(ctx, l.name, grants); err != nil {
		return 0, err
	}
	after := make([]*store.Grant, n)
	for i, g := range grants {
		if after[i], err = l.after(ctx, g, leased); err != nil {
			return 0, err
		}
	}
	return timed(n, func() error { return l.refreshAll(ctx, grants, after, leased) })
}

func (l *loops) refreshAll(ctx context.Context, grants []testGrant, after []*store.Grant, leased bool) error {
	return each(ctx, l.cfg.Refresh.Concurrency, len(grants), func(i int) error {
		g := grants[i]
		if leased {
			now := time.Now()
			if _, _, err := l.store.Acquire(ctx, store.LeaseRequest{
				GrantID: g.ID, Version: g.Version, DueAt: &g.Due.At, Owner: g.UserID, Now: now, Until: now.Add(l.cfg.Refresh.Lease),
			}); err != nil {
				return err
			}
		}
		if _, err := l.mesh.Refresh(ctx, refresher.RefreshRequest{BrokerType: broker, RefreshToken: g.tokens.RefreshToken}); err != nil {
			return err
		}
		return l.store.Save(ctx, after[i])
	})
}

// after is the document that a worker would write for an answer.
func (l *loops) after(ctx context.Context, g testGrant, leased bool) (*store.Grant, error) {
	next := g.Clone()
	answer := refresher.Answer{
		RefreshToken: g.tokens.RefreshToken, ExpiresIn: lifetime, RefreshExpiresIn: 90 * 24 * time.Hour,
		Accounts: []refresher.AnsweredAccount{{ID: g.Accounts[0].ID, Name: g.Accounts[0].Name, AccessToken: g.tokens.Accounts[0].AccessToken}},
	}
	tokens, err := l.settler.ApplyAnswer(next, g.tokens, answer, false, 1, time.Now())
	if err != nil {
		return nil, err
	}
	sealer, err := l.envelope.Sealer(ctx, next.UserID)
	if err != nil {
		return nil, err
	}
	next.Sealed = store.SealTokens(sealer, tokens, next.Binding())
	if leased {
		next.Rev++
	}
	return next, nil
}
