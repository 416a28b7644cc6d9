package tokens

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// heldKeys hold up whoever asks for a key, once begun is there to tell.
type heldKeys struct {
	envelope.KeyStore
	begun, release chan struct{}
}

func (k *heldKeys) Key(ctx context.Context, id string) (envelope.WrappedKey, error) {
	k.begun <- struct{}{}
	<-k.release
	return k.KeyStore.Key(ctx, id)
}

// Requests that wait, for the database or for a data key, hold up none of those
// that need not.
func TestARequestThatWaitsHoldsUpNoOther(t *testing.T) {
	f := newFixture(t)
	elsewhere := f.envelope()
	held := &heldKeys{KeyStore: f.sealing.Store, begun: make(chan struct{}, 1), release: make(chan struct{})}
	f.sealing.Store = held
	e := f.reopened()
	stored := map[string]*store.Grant{
		"quick": grantOf(t, e, "quick"), "unread": grantOf(t, e, "unread"), "unopened": grantOf(t, elsewhere, "unopened"),
	}
	reading, read := make(chan struct{}, 1), make(chan struct{})
	s := f.tokenService(e, func(_ context.Context, userID string) ([]*store.Grant, error) {
		if userID == "unread" {
			reading <- struct{}{}
			<-read
		}
		return []*store.Grant{stored[userID]}, nil
	})
	nc := f.js.Conn()
	require.NoError(t, s.Start(nc))
	ask := func(user string) <-chan *nats.Msg {
		body, err := json.Marshal(events.TokenRequest{UserID: user})
		require.NoError(t, err)
		answers := make(chan *nats.Msg, 1)
		inbox := nc.NewInbox()
		_, err = nc.ChanSubscribe(inbox, answers)
		require.NoError(t, err)
		require.NoError(t, nc.PublishRequest(f.subjects.TokenGet(user), inbox, body))
		return answers
	}
	tokens := func(answers <-chan *nats.Msg) {
		t.Helper()
		msg := enginestest.Receive(t, answers)
		require.Empty(t, msg.Header.Get(micro.ErrorHeader))
		var reply events.TokenReply
		require.NoError(t, json.Unmarshal(msg.Data, &reply))
		require.Len(t, reply.AccessTokens, 1)
	}

	// Read, so that the data key is all that it waits for.
	_, err := s.grants.byUser(t.Context(), "unopened")
	require.NoError(t, err)
	unopened := ask("unopened")
	enginestest.Receive(t, held.begun)
	unread := ask("unread")
	enginestest.Receive(t, reading)
	for range 3 { // read for the first, kept for the others
		tokens(ask("quick"))
	}
	close(read)
	tokens(unread)
	close(held.release)
	tokens(unopened)
	require.NoError(t, s.Stop())
}

// without is a refresher that finds no grant any more.
type without struct{ Refresher }

func (without) RefreshNow(context.Context, *store.Grant) (*store.Grant, error) {
	return nil, fmt.Errorf("taking the lease: %w", store.ErrNotFound)
}

// A user who disconnects while a refresh on request begins leaves no grant whose tokens
// could still be given.
func TestAGrantThatIsErasedBeforeItsRefreshIsGivenToNobody(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	s := f.tokenService(e, nil)
	s.opts.Refresher = without{s.opts.Refresher}
	require.Equal(t, store.Revoked, s.refresh(t.Context(), grantOf(t, e, "alice"), false).State)
}
