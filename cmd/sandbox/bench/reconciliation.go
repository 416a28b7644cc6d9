package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// reconciliationSettings have workers reconcile as often as by default.
var reconciliationSettings = []string{fmt.Sprint("LATCHKEY_RECONCILE_INTERVAL=", config.Default().Reconcile.Interval)}

// Nothing comes due during the measurement: the hour in which half of the grants are due begins after dueAhead.
const (
	dueAhead = 4 * time.Hour
	dueSoon  = time.Hour
)

// reconciliation measures how long workers take to make all schedules again after NATS has lost them.
func (s *site) reconciliation(ctx context.Context, _ *engines.Memory) (rows []Row, err error) {
	if err := s.work(ctx, 0); err != nil {
		return nil, err
	}
	due, err := s.scheduled(ctx)
	if err != nil {
		return nil, err
	}
	var first []float64
	for _, n := range s.Workers {
		if err := s.wipe(ctx); err != nil {
			return nil, err
		}
		s.say("%d worker(s) make %d schedules again", n, s.Scheduled)
		again, err := s.again(ctx, n, due)
		if err != nil {
			return nil, err
		}
		more := again.rows(n, s)
		if first == nil {
			first = more[0].Values
		} else {
			more[0].Baseline, more[0].Against = first, fmt.Sprintf("%d worker process(es)", s.Workers[0])
		}
		rows = append(rows, more...)
		if err := s.work(ctx, 0); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// scheduled stores grants, each due later than the one before, whose schedules lie in a stream, and returns the place of
// each in that order.
func (s *site) scheduled(ctx context.Context) (map[string]int, error) {
	fingerprints, err := store.NewFingerprints(store.FingerprintOptions{Store: s.store, Envelope: s.envelope})
	if err != nil {
		return nil, err
	}
	key, err := fingerprints.Key(ctx)
	if err != nil {
		return nil, err
	}
	copies, err := s.copies(ctx)
	if err != nil {
		return nil, err
	}
	begin, places := time.Now().Add(dueAhead), make(map[string]int, s.Scheduled)
	for len(places) < s.Scheduled {
		grants := make([]testGrant, min(20*batch, s.Scheduled-len(places)))
		for i := range grants {
			g := copies()
			g.Chain = (&store.Chain{Key: key.ID}).WithCurrent(key.Of(secret.New(g.UserID)), g.ConnectedAt, true)
			g.Due = &store.Due{At: store.Milli(begin.Add(s.dueAfter(len(places)))), Action: store.Refresh, Stream: s.dispatcher.Stream(g.ID)}
			places[g.ID], grants[i] = len(places), testGrant{Grant: g}
		}
		if err := s.insert(ctx, s.cfg.MongoDB.Database, grants); err != nil {
			return nil, err
		}
		s.say("%d of %d grants are stored", len(places), s.Scheduled)
	}
	return places, nil
}

// dueAfter is when a grant is due, from the beginning of the hour: half of them within it, the others within the horizon.
func (s *site) dueAfter(place int) time.Duration {
	half := s.Scheduled / 2
	if place < half {
		return time.Duration(float64(dueSoon) * float64(place+1) / float64(half))
	}
	later := s.cfg.Refresh.Horizon - dueAhead - 2*dueSoon
	return dueSoon + time.Duration(float64(later)*float64(place-half)/float64(s.Scheduled-half))
}

// wipe deletes the streams, of which no worker runs. The canary stays, by which workers see that NATS has its key: that
// they wait until they know is not measured.
func (s *site) wipe(ctx context.Context) error {
	prefix, _ := strings.CutSuffix(s.subjects.CanaryStream(), "CANARY")
	all := s.js.StreamNames(ctx)
	for name := range all.Name() {
		if !strings.HasPrefix(name, prefix) || name == s.subjects.CanaryStream() {
			continue
		}
		if err := s.js.DeleteStream(ctx, name); err != nil {
			return fmt.Errorf("deleting stream %s: %w", name, err)
		}
	}
	if err := all.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return fmt.Errorf("listing streams: %w", err)
	}
	return nil
}

// madeAgain is when each schedule was made again, in the order in which they are due.
type madeAgain struct {
	begun    time.Time
	cpu      float64 // of all workers, in seconds
	mu       sync.Mutex
	at       []time.Duration // since begun; 0: not yet
	done     int
	messages int
}

func (m *madeAgain) note(place int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages++
	if m.at[place] == 0 {
		m.at[place] = time.Since(m.begun)
		m.done++
	}
}

// again starts workers and waits until they have made all schedules again.
func (s *site) again(ctx context.Context, workers int, places map[string]int) (*madeAgain, error) {
	m := &madeAgain{begun: time.Now(), at: make([]time.Duration, len(places))}
	for _, p := range s.subjects.RefreshPartitions() {
		sub, err := s.nc.Subscribe(p.Schedules, func(msg *nats.Msg) {
			if place, known := places[msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:]]; known {
				m.note(place)
			}
		})
		if err == nil {
			err = errors.Join(sub.SetPendingLimits(-1, -1), s.nc.Flush())
		}
		if err != nil {
			return nil, fmt.Errorf("listening to schedules: %w", err)
		}
		defer func() { _ = sub.Unsubscribe() }() // fails on a closed connection only
	}
	if err := s.work(ctx, workers); err != nil {
		return nil, err
	}
	told := 0
	err := awaitCount(ctx, len(places), often, "schedules are made again", func() (int, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if tenths := m.done * 10 / len(places); tenths > told {
			told = tenths
			s.say("%d of %d schedules are made again, after %s", m.done, len(places), time.Since(m.begun).Round(time.Second))
		}
		return m.done, nil
	})
	if err != nil {
		return nil, err
	}
	if m.cpu, err = s.workersCPU(ctx); err != nil {
		return nil, err
	}
	return m, s.allScheduled(ctx)
}

// allScheduled sees that the schedules are in the streams.
func (s *site) allScheduled(ctx context.Context) error {
	return awaitCount(ctx, s.Scheduled, seldom, "schedules are stored", func() (stored int, err error) {
		for _, p := range s.subjects.RefreshPartitions() {
			stream, err := s.js.Stream(ctx, p.Stream)
			if err != nil {
				return 0, fmt.Errorf("reading stream %s: %w", p.Stream, err)
			}
			stored += int(stream.CachedInfo().State.Msgs)
		}
		return stored, nil
	})
}

func (m *madeAgain) rows(workers int, s *site) []Row {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.at)
	latest, tenth, soon, late := time.Duration(0), time.Duration(0), time.Duration(0), 0
	for place, at := range m.at {
		if latest = max(latest, at); place < max(n/10, 1) {
			tenth = latest
		}
		if place < n/2 {
			soon = latest
		}
		if at > s.dueAfter(place) {
			late++
		}
	}
	by := fmt.Sprintf("%d worker process(es)", workers)
	row := func(figure, unit string, value float64, method string) Row {
		return Row{Figure: figure + ", " + by, Unit: unit, Values: []float64{value}, Method: method}
	}
	return []Row{
		row("schedules made again after a wipe of NATS", "grants/s", float64(n)/latest.Seconds(),
			fmt.Sprintf("%d grants, half of them due within an hour; from the start of the workers' processes until the last schedule; reconcile.interval %s, reconcile.batch %d; %d schedules were written more than once; %s",
				n, s.cfg.Reconcile.Interval, s.cfg.Reconcile.Batch, m.messages-n, atOnce)),
		row("time until all are scheduled again", "s", latest.Seconds(), "the same"),
		row("time until the tenth that is due first is scheduled again", "s", tenth.Seconds(), "the same"),
		row("time until all that are due within the hour are scheduled again", "s", soon.Seconds(), "the same"),
		row("scheduled again after they were due", fmt.Sprintf("of %d", n), float64(late), "the same, if the hour begins when the workers start"),
		row("CPU time of a schedule, workers", "ms", m.cpu/float64(n)*1000, "of the processes of all workers, by their own count"),
	}
}
