package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/workerprocess"
)

// onMemory takes a measure on an installation whose database answers at once.
func onMemory(name string, take func(*site, context.Context, *engines.Memory) ([]Row, error), more ...string) func(*run, context.Context) ([]Row, error) {
	return func(r *run, ctx context.Context) ([]Row, error) { return r.onMemory(ctx, name, take, more...) }
}

func (r *run) onMemory(ctx context.Context, name string, take func(*site, context.Context, *engines.Memory) ([]Row, error), more ...string) (rows []Row, err error) {
	memory, err := engines.StartMemory()
	if err != nil {
		return nil, err
	}
	defer memory.Stop()
	at, err := r.apart(ctx, memory.URI())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, at.servers.stop()) }()
	s, err := at.site(ctx, name, more...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	return take(s, ctx, memory)
}

// writes measures what connects and refreshes cost a worker itself.
func (s *site) writes(ctx context.Context, _ *engines.Memory) ([]Row, error) {
	connects, err := s.connectsAtOnce(ctx)
	if err != nil {
		return nil, err
	}
	refreshes, err := s.refreshesAtOnce(ctx)
	return append(connects, refreshes...), err
}

const atOnce = "the database answers at once, from memory, so that the worker's own cost is what is measured"

// connectsAtOnce compares connects with the writes that they end in.
func (s *site) connectsAtOnce(ctx context.Context) ([]Row, error) {
	grants, bare := s.client.Database(s.cfg.MongoDB.Database).Collection("grants"), s.client.Database(s.cfg.MongoDB.Database).Collection("bare")
	if err := bench.CopyIndexes(ctx, grants, bare); err != nil {
		return nil, err
	}
	latchkey := func(n int) (float64, error) { return s.connect(ctx, n) }
	upserts := func(n int) (float64, error) { return s.upserts(ctx, grants, bare, n) }
	n, err := s.warmUp(s.Refreshes, s.Longest/3, latchkey, upserts)
	if err != nil {
		return nil, err
	}
	var rates, bareRates, cpu []float64
	for round := range s.Rounds {
		s.say("connecting %d users, database in memory, round %d of %d", n, round+1, s.Rounds)
		rate, each, err := s.costing(ctx, n, latchkey)
		if err != nil {
			return nil, err
		}
		bareRate, err := upserts(n)
		if err != nil {
			return nil, err
		}
		rates, bareRates, cpu = append(rates, rate), append(bareRates, bareRate), append(cpu, each)
	}
	return []Row{
		{
			Figure: "connects, database in memory", Unit: "connects/s", Values: rates, Baseline: bareRates,
			Method:  fmt.Sprintf("a backlog of %s; %s", sizeText(n, s.Refreshes), atOnce),
			Against: fmt.Sprintf("upserts of the same documents by %d callers, as many as connects are handled at once", s.cfg.Connect.Concurrency), Target: new(AtLeast(0.7)),
		},
		{Figure: "CPU time of a connect, database in memory", Unit: "ms", Values: cpu, Method: "of the same connects; of the worker's process, by its own count", Target: new(AtMost(0.4))},
	}, nil
}

// refreshesAtOnce compares refreshes with the loop that takes leases.
func (s *site) refreshesAtOnce(ctx context.Context) (rows []Row, err error) {
	loops, err := s.loops(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, loops.close(ctx)) }()
	latchkey := func(n int) (float64, error) { return s.refresh(ctx, n) }
	leased := func(n int) (float64, error) { return loops.refresh(ctx, n, true) }
	n, err := s.warmUp(s.Refreshes, s.Longest/3, latchkey, leased)
	if err != nil {
		return nil, err
	}
	var rates, bareRates, cpu []float64
	for round := range s.Rounds {
		s.say("refreshing %d grants, database in memory, round %d of %d", n, round+1, s.Rounds)
		rate, each, err := s.costing(ctx, n, latchkey)
		if err != nil {
			return nil, err
		}
		bareRate, err := leased(n)
		if err != nil {
			return nil, err
		}
		rates, bareRates, cpu = append(rates, rate), append(bareRates, bareRate), append(cpu, each)
	}
	return []Row{
		{
			Figure: "refreshes, database in memory", Unit: "refreshes/s", Values: rates, Baseline: bareRates,
			Method: fmt.Sprintf("a backlog of %s, %d at once; %s", sizeText(n, s.Refreshes), s.cfg.Refresh.Concurrency, atOnce), Against: againstLeases, Target: new(AtLeast(0.85)),
		},
		{Figure: "CPU time of a refresh, database in memory", Unit: "ms", Values: cpu, Method: "of the same refreshes; of the worker's process, by its own count", Target: new(AtMost(0.5))},
	}, nil
}

// warmUp runs small rounds, and returns how large a round within some time may be.
func (s *site) warmUp(n int, within time.Duration, do ...func(n int) (rate float64, err error)) (int, error) {
	few := max(n/20, 1)
	for _, do := range do {
		rate, err := do(few)
		if err != nil {
			return 0, err
		}
		n = fits(n, rate, within)
	}
	return n, nil
}

// costing also returns the CPU time of the worker for each, in milliseconds.
func (s *site) costing(ctx context.Context, n int, do func(n int) (float64, error)) (rate, each float64, err error) {
	before, err := s.cpu(ctx)
	if err != nil {
		return 0, 0, err
	}
	if rate, err = do(n); err != nil {
		return 0, 0, err
	}
	after, err := s.cpu(ctx)
	return rate, (after - before) / float64(n) * 1000, err
}

// cpu returns the CPU time that the worker's process has taken, in seconds.
func (s *site) cpu(ctx context.Context) (float64, error) {
	metrics, err := workerprocess.ReadMetrics(ctx, s.workers[0].admin)
	if err != nil {
		return 0, err
	}
	return metrics.Value("process_cpu_seconds_total"), nil
}

// upserts writes copies of n grants, and returns how many a second.
func (s *site) upserts(ctx context.Context, from, to *mongo.Collection, n int) (float64, error) {
	cursor, err := from.Find(ctx, bson.D{}, options.Find().SetLimit(int64(n)))
	if err != nil {
		return 0, fmt.Errorf("reading the documents: %w", err)
	}
	var docs []bson.Raw
	if err := cursor.All(ctx, &docs); err != nil {
		return 0, fmt.Errorf("reading the documents: %w", err)
	}
	if _, err := to.DeleteMany(ctx, bson.D{}); err != nil {
		return 0, fmt.Errorf("removing the documents of the last round: %w", err)
	}
	return timed(len(docs), func() error {
		return each(ctx, s.cfg.Connect.Concurrency, len(docs), func(i int) error {
			write := mongo.NewReplaceOneModel().SetFilter(bson.D{{Key: "_id", Value: docs[i].Lookup("_id")}}).SetReplacement(docs[i]).SetUpsert(true)
			_, err := to.BulkWrite(ctx, []mongo.WriteModel{write})
			return err
		})
	})
}
