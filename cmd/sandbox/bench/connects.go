package bench

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
)

// connects compares a worker with a bare driver that writes what the worker
// stores.
func (r *run) connects(ctx context.Context) (rows []Row, err error) {
	s, err := r.site(ctx, "connects")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	db := s.client.Database(s.cfg.MongoDB.Database)
	stored, bare := db.Collection("grants"), db.Collection("bare")
	if err := bench.Twin(ctx, stored, bare); err != nil {
		return nil, err
	}
	if err := s.stack.Ready(ctx); err != nil {
		return nil, err
	}
	// Where the bare driver goes first, it writes what the worker stored in the
	// round before.
	var docs []bson.D
	latchkey := func(n int) (rate float64, err error) {
		if rate, err = s.connect(ctx, n); err != nil {
			return 0, err
		}
		docs, err = take(ctx, stored)
		return rate, err
	}
	upserts := func() (rate float64, err error) {
		if rate, err = bench.Upserts(ctx, bare, docs); err != nil {
			return 0, err
		}
		return rate, empty(ctx, bare)
	}

	rate, err := latchkey(max(r.Users/20, 1)) // to warm up
	if err != nil {
		return nil, err
	}
	if _, err := upserts(); err != nil {
		return nil, err
	}
	n := fits(r.Users, rate, r.Longest)
	var rates, bareRates []float64
	for round := range r.Rounds {
		r.say("connecting %d users, round %d of %d", n, round+1, r.Rounds)
		err := bench.Alternately(round, func() error {
			rate, err := latchkey(n)
			rates = append(rates, rate)
			return err
		}, func() error {
			rate, err := upserts()
			bareRates = append(bareRates, rate)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return []Row{{
		Figure: "connects stored, scheduled and announced", Unit: "connects/s", Values: rates, Baseline: bareRates,
		Method:  fmt.Sprintf("a backlog of %s lies in the stream; from when it may be read until the last token.stored", sized(n, r.Users)),
		Against: "bulk upserts of the same documents", Target: new(AtLeast(0.8)),
	}}, nil
}

// take returns all documents of a collection and leaves it empty, as the next
// round is to find it.
func take(ctx context.Context, c *mongo.Collection) (docs []bson.D, err error) {
	ctx, cancel := context.WithTimeout(ctx, stalled)
	defer cancel()
	cursor, err := c.Find(ctx, bson.D{})
	if err == nil {
		err = cursor.All(ctx, &docs)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the documents: %w", err)
	}
	return docs, empty(ctx, c)
}

func empty(ctx context.Context, c *mongo.Collection) error {
	ctx, cancel := context.WithTimeout(ctx, stalled)
	defer cancel()
	if _, err := c.DeleteMany(ctx, bson.D{}); err != nil {
		return fmt.Errorf("removing the documents of a round: %w", err)
	}
	return nil
}
