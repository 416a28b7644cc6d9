package handlers

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/store"
)

// uses notes in the database which grants are in use, some at a time and beside
// the requests: of two refreshes that wait, the one in use goes first. It is a
// hint; one too many is dropped.
type uses struct {
	write func(ctx context.Context, grants ...*store.Grant) error
	noted chan *store.Grant
	// stopping and ended are closed when no more is noted, and all is written.
	stopping, ended chan struct{}
	log             *zap.Logger
}

const (
	maxUses = 4096 // that wait
	usesAt  = 100  // in one write
	// usesShare is the part of the time in which uses are written.
	usesShare = 5
	// usesTimeout bounds a write, and what is written at the end.
	usesTimeout = 5 * time.Second
)

func newUses(write func(context.Context, ...*store.Grant) error, log *zap.Logger) *uses {
	return &uses{write: write, noted: make(chan *store.Grant, maxUses), stopping: make(chan struct{}), ended: make(chan struct{}), log: log}
}

// note reports whether the use of a grant will be written.
func (u *uses) note(g *store.Grant) bool {
	select {
	case u.noted <- g:
		return true
	default:
		return false
	}
}

// run writes until stop is called.
func (u *uses) run() {
	defer close(u.ended)
	for first := range u.noted {
		batch := []*store.Grant{first}
		for more := true; more && len(batch) < usesAt; {
			select {
			case g, ok := <-u.noted:
				if more = ok; ok {
					batch = append(batch, g)
				}
			default:
				more = false
			}
		}
		begun := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), usesTimeout)
		err := u.write(ctx, batch...)
		cancel()
		if err != nil {
			u.log.Debug("the use of grants could not be noted", zap.Int("grants", len(batch)), zap.Error(err))
		}
		select {
		case <-time.After((usesShare - 1) * time.Since(begun)):
		case <-u.stopping:
		}
	}
}

// stop writes what is left, for a moment at most. Nobody may note any more.
func (u *uses) stop() {
	close(u.stopping)
	close(u.noted)
	select {
	case <-u.ended:
	case <-time.After(usesTimeout):
	}
}
