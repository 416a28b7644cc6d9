package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/pause"
)

// counted is what each piece of work is counted for.
var counted = []string{
	"MongoDB lookups and writes", "MongoDB commands", "KMS calls", "NATS messages received", "NATS messages sent", "NATS KB received", "NATS KB sent", "JetStream messages stored",
}

// costsSettings let a document be read once, and have a refresh write no schedule for the next one: that is counted with
// the next one.
var costsSettings = []string{"LATCHKEY_TOKENS_CACHE_AGE=1h", "LATCHKEY_REFRESH_HORIZON=7h", "LATCHKEY_RECONCILE_INTERVAL=6h"}

// costs counts what each piece of work asks of the engines, with all that goes on beside it.
func (s *site) costs(ctx context.Context, memory *engines.Memory) (rows []Row, err error) {
	if s.stack.NATS == nil {
		return nil, errors.New("costs are counted at the embedded NATS, which has no other clients")
	}
	n := s.Refreshes
	if _, err := s.connect(ctx, max(n/20, 1)); err != nil { // until the worker has its keys
		return nil, err
	}
	grants, err := s.grants(ctx, n, func(int) time.Time { return time.Now().Add(lifetime) })
	if err != nil {
		return nil, err
	}
	if err := s.insert(ctx, s.cfg.MongoDB.Database, grants); err != nil {
		return nil, err
	}
	read := func() error {
		return each(ctx, s.Callers, n, func(i int) error {
			body, err := json.Marshal(events.TokenRequest{UserID: grants[i].UserID})
			if err != nil {
				return fmt.Errorf("writing a request: %w", err)
			}
			_, err = bench.Request(ctx, s.nc, s.subjects.TokenGet(grants[i].UserID), body)
			return err
		})
	}
	for _, work := range []struct {
		name string
		do   func(begin func() error) error
	}{
		{"connect", func(begin func() error) error {
			if err := begin(); err != nil {
				return err
			}
			_, err := s.connect(ctx, n)
			return err
		}},
		{"refresh", func(begin func() error) error {
			_, err := s.refreshFrom(ctx, n, begin, nothing)
			return err
		}},
		{"first read", func(begin func() error) error {
			if err := begin(); err != nil {
				return err
			}
			before := memory.Count().Statements
			// That somebody asks is noted of a grant at times, and of all in the end.
			return awaitCount(ctx, 2*n, seldom, "documents are read and noted", func() (int, error) {
				return memory.Count().Statements - before, read()
			})
		}},
		{"read", func(begin func() error) error {
			if err := begin(); err != nil {
				return err
			}
			return read()
		}},
	} {
		s.say("counting what each of %d costs: %s", n, work.name)
		var before []float64
		if err := work.do(func() (err error) { before, err = s.count(ctx, memory); return err }); err != nil {
			return nil, err
		}
		if err := pause.For(ctx, time.Second); err != nil { // for what comes behind
			return nil, err
		}
		after, err := s.count(ctx, memory)
		if err != nil {
			return nil, err
		}
		for i, what := range counted {
			if work.name == "first read" && i > 2 {
				break // they are those of a read, which was repeated
			}
			rows = append(rows, Row{
				Figure: what + ", " + work.name, Unit: "each", Values: []float64{(after[i] - before[i]) / float64(n)},
				Method: fmt.Sprintf("counted over %d; of NATS at its server, callers and one subscriber to events included", n),
			})
		}
	}
	return rows, nil
}

// count returns what was counted so far, in the order of counted.
func (s *site) count(ctx context.Context, memory *engines.Memory) ([]float64, error) {
	v, err := s.stack.NATS.Server().Varz(nil)
	if err != nil {
		return nil, fmt.Errorf("asking NATS for its counters: %w", err)
	}
	stored := uint64(0)
	all := s.js.ListStreams(ctx)
	for info := range all.Info() {
		stored += info.State.LastSeq
	}
	if err := all.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return nil, fmt.Errorf("listing streams: %w", err)
	}
	kms := 0
	for _, operation := range []string{"GenerateDataKey", "Decrypt", "ReEncrypt", "DescribeKey"} {
		kms += s.stack.KMS.Calls(operation)
	}
	done := memory.Count()
	const kb = 1000
	return []float64{
		float64(done.Statements), float64(done.Commands), float64(kms),
		float64(v.InMsgs), float64(v.OutMsgs), float64(v.InBytes) / kb, float64(v.OutBytes) / kb, float64(stored),
	}, nil
}
