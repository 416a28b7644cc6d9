package audit

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// Head is the last message of a chain. It is stored outside of NATS, so that the loss of
// a chain or of its end shows.
type Head struct {
	Chain  string `bson:"_id" json:"chain"`
	Worker string `bson:"worker" json:"worker"`
	Number uint64 `bson:"n" json:"n"`
	Hash   string `bson:"hash" json:"hash"`
	// Sequence is the number in Stream. Without a name that is the first stream, the only one
	// that earlier releases had.
	Stream   string `bson:"stream,omitempty" json:"stream,omitempty"`
	Sequence uint64 `bson:"sequence" json:"sequence"`
	// Begun is when the chain began, At when its last message was stored.
	Begun time.Time `bson:"begun" json:"begun"`
	At    time.Time `bson:"at" json:"at"`
	// Ended: the worker stopped cleanly.
	Ended bool `bson:"ended" json:"ended"`
	// PurgeAt is when the messages are older than their retention.
	PurgeAt time.Time `bson:"purgeAt" json:"purgeAt"`
}

// Heads stores the heads of all chains.
type Heads interface {
	PutAuditHead(ctx context.Context, h Head) error
}

// storeHeads stores the first head at once, and later ones from time to time.
func (l *Log) storeHeads(ctx context.Context) {
	ticker := time.NewTicker(l.headInterval)
	defer ticker.Stop()
	var put uint64
	for {
		select {
		case <-l.first:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		number := l.Head().Number
		if number == put {
			continue
		}
		if err := l.putHead(ctx); err != nil {
			if ctx.Err() == nil {
				l.metrics.failures.Inc()
				l.log.Warn("the head of the audit log could not be stored; the next attempt follows", zap.Error(err))
			}
			continue
		}
		put = number
	}
}

// Head returns the last message that was stored.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

func (l *Log) putHead(ctx context.Context) error {
	h := l.Head()
	if l.heads == nil || h.Number == 0 {
		return nil
	}
	h.PurgeAt = h.At.Add(l.retention)
	if err := l.heads.PutAuditHead(ctx, h); err != nil {
		return fmt.Errorf("storing the head of the audit log: %w", err)
	}
	return nil
}
