package handlers_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

const (
	hour = time.Hour
	day  = 24 * time.Hour

	patience = refreshertest.Patience
)

var (
	due     = refreshertest.Due
	lasting = refreshertest.Lasting
	endless = refreshertest.Endless
)

type worker = refreshertest.Worker

// rig has workers park what answers left as dead letters.
type rig struct {
	*refreshertest.Rig
	// ended receives the error of a refresh in the background.
	ended <-chan error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{Rig: refreshertest.New(t)}
}

func (r *rig) Worker(id string, change ...func(*refresher.Options)) *worker {
	r.T.Helper()
	park := func(d *refresher.Options) { d.ParkAnswer = r.letters(d.Envelope).ParkAnswer }
	return r.Rig.Worker(id, append([]func(*refresher.Options){park}, change...)...)
}

// refreshing begins the refresh of a grant and returns once Mesh holds the answer about an
// account. The channel receives the refresh's error after r.Release.
func (r *rig) refreshing(w *worker, g *store.Grant, account string) <-chan error {
	r.T.Helper()
	r.Block(account)
	ended := make(chan error, 1)
	go func() { _, err := w.RefreshNow(context.Background(), g); ended <- err }()
	r.Wait(r.Blocked)
	return ended
}

func (r *rig) letters(e *envelope.Envelope) *handlers.DeadLetters {
	r.T.Helper()
	letters, err := handlers.NewDeadLetters(handlers.DeadLettersOptions{JetStream: r.JS, Envelope: e, Subjects: r.Subjects, Now: r.Clock.Now, NewID: uuid.NewString, Log: r.Log})
	require.NoError(r.T, err)
	return letters
}

// leftovers returns the opened bodies of the dead letters of a grant.
func (r *rig) leftovers(w *worker, g *store.Grant) (bodies []string) {
	r.T.Helper()
	letters := r.letters(w.Envelope)
	for letter, err := range letters.All(r.T.Context()) {
		require.NoError(r.T, err)
		require.Equal(r.T, handlers.AnswerName, letter.Message)
		if letter.Tag == g.ID {
			body, err := letters.Open(r.T.Context(), letter.DeadLetter)
			require.NoError(r.T, err)
			bodies = append(bodies, string(body))
		}
	}
	return bodies
}

// connector is a worker's connector. Where the worker's refreshes have to sort out accounts
// by it, make both with resolving.
func (r *rig) connector(w *worker, change ...func(*handlers.ConnectorOptions)) *handlers.Connector {
	r.T.Helper()
	o := handlers.ConnectorOptions{
		Store: w.Store, Envelope: w.Envelope, Fingerprints: w.Fingerprints, Settler: w.Settler, Dispatcher: w.Dispatcher, ParkLeftovers: w.ParkLeftovers, Remember: day, Log: r.Log,
	}
	for _, f := range change {
		f(&o)
	}
	c, err := handlers.NewConnector(o)
	require.NoError(r.T, err)
	return c
}

func text(s string) secret.Text { return secret.New(s) }
