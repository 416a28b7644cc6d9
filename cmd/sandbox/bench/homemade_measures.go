package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
	"github.com/latchkey/latchkey/cmd/sandbox/bench/homemade"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

func (s *site) readsAndBurst(ctx context.Context, v *rival) ([]Row, error) {
	reads, err := s.reads(ctx, v)
	if err != nil {
		return nil, err
	}
	burst, err := s.burst(ctx, v)
	return append(reads, burst...), err
}

// reads compares requests for tokens, by one caller and by many.
func (s *site) reads(ctx context.Context, v *rival) (rows []Row, err error) {
	grants, err := s.grants(ctx, s.Warm, func(int) time.Time { return time.Now().Add(lifetime) })
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.insert(ctx, s.cfg.MongoDB.Database, grants), v.add(ctx, grants), v.start(ctx, s, s.Cron)); err != nil {
		return nil, err
	}
	bodies := make([][]byte, len(grants))
	for i, g := range grants {
		if bodies[i], err = json.Marshal(homemade.Request{UserID: g.UserID}); err != nil {
			return nil, fmt.Errorf("writing a request: %w", err)
		}
	}
	worker := func(i int) ([]byte, error) {
		i %= len(grants)
		return bench.Request(ctx, s.nc, s.subjects.TokenGet(grants[i].UserID), bodies[i])
	}
	reply, err := worker(0)
	if err != nil {
		return nil, err
	}
	if err := each(ctx, s.Callers, len(grants), func(i int) error { _, err := worker(i); return err }); err != nil {
		return nil, err
	}
	sides := []func(i int) ([]byte, error){
		worker,
		func(i int) ([]byte, error) {
			return bench.Request(ctx, s.nc, v.options.Prefix+".get", bodies[i%len(grants)])
		},
		func(int) ([]byte, error) { return bench.Request(ctx, s.nc, v.options.Prefix+".echo", reply) },
	}
	for _, callers := range []int{1, s.Callers} {
		rates, cpu := make([][]float64, len(sides)), []float64(nil)
		for round := range s.Rounds + 1 { // the first is not counted
			s.say("reading tokens, %d at once, round %d of %d", callers, round, s.Rounds)
			for i, ask := range sides {
				before, err := s.cpu(ctx)
				if err != nil {
					return nil, err
				}
				rate, _, err := bench.Calls(ctx, callers, s.Duration, func(i int) error { _, err := ask(i); return err })
				if err != nil {
					return nil, err
				}
				after, err := s.cpu(ctx)
				if err != nil {
					return nil, err
				}
				if round > 0 {
					rates[i] = append(rates[i], rate)
				}
				if round > 0 && i == 0 {
					cpu = append(cpu, (after-before)/(rate*s.Duration.Seconds())*1000)
				}
			}
		}
		row := Row{
			Figure: fmt.Sprintf("reads, %d at once, to a home-made service", callers), Unit: "reads/s", Values: rates[0], Baseline: rates[1], Against: againstHomemade,
			Method: fmt.Sprintf("requests for the tokens of %d users for %s, to a worker in a process of its own; every hand-out is in the audit log before it is answered. The worker has read the users' documents before, and keeps them (tokens.cache_age)", s.Warm, s.Duration),
		}
		rows = append(rows, row)
		row.Figure, row.Baseline, row.Method = fmt.Sprintf("reads, %d at once, to an echo", callers), rates[2], "the same requests"
		row.Against = "a micro service in a process of its own that answers with what it was sent, which is as long as a reply"
		rows = append(rows, row, Row{Figure: fmt.Sprintf("CPU time of a read, %d at once", callers), Unit: "ms", Values: cpu, Method: "of the same requests; of the worker's process, by its own count"})
	}
	return rows, nil
}

// burst compares how late the last of many grants are refreshed that come due within a short time.
func (s *site) burst(ctx context.Context, v *rival) ([]Row, error) {
	lateness := func(begin time.Time, add func([]testGrant) error) (p99 float64, err error) {
		grants, err := s.grants(ctx, s.Burst, func(i int) time.Time {
			return begin.Add(time.Duration(float64(i) / float64(s.Burst) * float64(s.BurstFor)))
		})
		if err != nil {
			return 0, err
		}
		if err := add(grants); err != nil {
			return 0, err
		}
		if late := time.Since(begin); late > 0 {
			return 0, fmt.Errorf("all was ready %s after the first was due", late)
		}
		return s.lateP99(ctx, grants)
	}
	room := 3*time.Second + time.Duration(s.Burst)*2*time.Millisecond // to write all that before the first is due
	s.say("%d grants come due within %s: a worker", s.Burst, s.BurstFor)
	ours, err := lateness(time.Now().Add(room), func(grants []testGrant) error {
		return errors.Join(s.insert(ctx, s.cfg.MongoDB.Database, grants), s.schedule(ctx, grants))
	})
	if err != nil {
		return nil, err
	}
	// The last comes due just before a time of the cron, which is the best that can happen to it.
	begin := time.Now().Add(room + s.BurstFor).Truncate(s.Cron).Add(s.Cron - s.BurstFor)
	s.say("%d grants come due within %s: the home-made service, from %s on", s.Burst, s.BurstFor, begin.Format(time.TimeOnly))
	theirs, err := lateness(begin, func(grants []testGrant) error { return v.add(ctx, grants) })
	if err != nil {
		return nil, err
	}
	return []Row{{
		Figure: fmt.Sprintf("lateness of %d grants due within %s, 99th percentile", s.Burst, s.BurstFor), Unit: "s", Values: []float64{ours}, Baseline: []float64{theirs},
		Method:  "from when a grant is due until Mesh has given it new tokens, by Mesh's ledger; one worker",
		Against: fmt.Sprintf("the home-made service, whose cron runs every %s, and here just when the last is due: the best that can happen to it", s.Cron),
	}}, nil
}

// lateP99 waits until all grants are refreshed, and returns the 99th percentile of how late, in seconds.
func (s *site) lateP99(ctx context.Context, grants []testGrant) (float64, error) {
	due := make(map[string]time.Time, len(grants))
	for _, g := range grants {
		due[g.Accounts[0].ID] = g.Due.At
	}
	var late []time.Duration
	err := awaitCount(ctx, len(grants), seldom, "grants are refreshed", func() (int, error) {
		late = late[:0]
		for _, c := range s.stack.Mesh.Ledger().Chains {
			if at, ok := due[c.Accounts[0].ID]; ok && len(c.Refresh) > 1 {
				late = append(late, c.Refresh[1].IssuedAt.Sub(at))
			}
		}
		return len(late), nil
	})
	if err != nil {
		return 0, err
	}
	slices.Sort(late)
	return late[len(late)*99/100].Seconds(), nil
}

// kill compares how many refresh tokens are presented again after they were replaced when a process is killed in the
// middle of its refreshes, and started again.
func (s *site) kill(ctx context.Context, v *rival) ([]Row, error) {
	slow := meshsim.Delay(200*time.Millisecond, 200*time.Millisecond).AfterWork()
	faults, err := s.stack.Mesh.Inject(meshsim.Fault{BrokerType: broker, Operation: meshsim.OpRefresh, Action: slow})
	if err != nil {
		return nil, fmt.Errorf("slowing Mesh down: %w", err)
	}
	defer s.stack.Mesh.ClearFaults(faults...)
	spent := func(who string, add func([]testGrant) error, kill func() error, refreshed func([]testGrant) (int, error)) (float64, error) {
		s.say("refreshing %d grants with a kill in the middle: %s", s.Killed, who)
		before := len(s.stack.Mesh.Ledger().Requests)
		grants, err := s.grants(ctx, s.Killed, func(int) time.Time { return time.Now() })
		if err != nil {
			return 0, err
		}
		if err := add(grants); err != nil {
			return 0, err
		}
		if err := awaitCount(ctx, s.Killed/2, often, "calls began", func() (int, error) { return len(s.stack.Mesh.Ledger().Requests) - before, nil }); err != nil {
			return 0, err
		}
		if err := kill(); err != nil {
			return 0, err
		}
		if err := awaitCount(ctx, s.Killed, seldom, "grants are refreshed", func() (int, error) { return refreshed(grants) }); err != nil {
			return 0, err
		}
		again := 0
		for _, use := range s.stack.Mesh.Ledger().ReplacedPresented() {
			if use.Request.ID > before {
				again++
			}
		}
		return float64(again), nil
	}
	later := time.Now().Add(lifetime / 2) // when no grant is due before it was refreshed
	ours, err := spent("a worker", func(grants []testGrant) error {
		return errors.Join(s.insert(ctx, s.cfg.MongoDB.Database, grants), s.schedule(ctx, grants))
	}, func() error {
		s.workers[0].kill()
		s.workers = nil
		return s.work(ctx, 1)
	}, func([]testGrant) (int, error) {
		n, err := s.client.Database(s.cfg.MongoDB.Database).Collection("grants").CountDocuments(ctx, bson.D{{Key: "due.at", Value: bson.D{{Key: "$gt", Value: later}}}})
		return int(n), err
	})
	if err != nil {
		return nil, err
	}
	const every = time.Second // of the cron, since its next time is waited for
	if err := v.process.stop(); err != nil {
		return nil, err
	}
	if err := v.start(ctx, s, every); err != nil {
		return nil, err
	}
	theirs, err := spent("the home-made service", func(grants []testGrant) error { return v.add(ctx, grants) }, func() error {
		v.process.kill()
		return v.start(ctx, s, every)
	}, func(grants []testGrant) (n int, err error) {
		users := make([]string, len(grants))
		for i, g := range grants {
			users[i] = g.UserID
		}
		rows, err := v.pool.Query(ctx, `SELECT count(*) FROM tokens WHERE user_id = ANY($1) AND due_at > $2`, users, later)
		if err != nil {
			return 0, err
		}
		return pgx.CollectOneRow(rows, pgx.RowTo[int])
	})
	if err != nil {
		return nil, err
	}
	return []Row{{
		Figure: "refresh tokens presented again after a kill", Unit: fmt.Sprintf("of %d", s.Killed), Values: []float64{ours}, Baseline: []float64{theirs},
		Method: fmt.Sprintf("%d grants are due, Mesh takes 0.2 s to answer, %d calls at once; the process is killed half way and started again. Whose answer the kill took is presented again, by anyone: nothing else is known of it",
			s.Killed, s.cfg.Refresh.Concurrency),
		Against: "the home-made service, with as many calls at once, each in a transaction of its own",
	}}, nil
}
