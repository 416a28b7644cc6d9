package refresher_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// TestNothingIsPresentedUnderALeaseThatIsNearlyOver holds a worker up at each of
// its readings of the clock in turn, for as long as a lease. Mesh then sees no
// request whose lease does not last for a call and a save.
func TestNothingIsPresentedUnderALeaseThatIsNearlyOver(t *testing.T) {
	r := newRig(t)
	var readings, stopAt atomic.Int64
	stopped := func() {
		if readings.Add(1) == stopAt.Load() {
			r.Clock.Advance(time.Minute)
		}
	}
	var w *worker
	var current atomic.Pointer[store.Grant]
	mesh := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return // it was not sent
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
		g, err := w.Store.Get(q.Context(), current.Load().ID)
		if err != nil || g.Lease.Until.Sub(r.Clock.Now()) < config.Default().CallAndSave() {
			t.Errorf("stopped at reading %d: presented under the lease %v at %v: %v", stopAt.Load(), g.Lease, r.Clock.Now(), err)
		}
		r.Sim.ServeHTTP(rw, q)
	}))
	t.Cleanup(mesh.Close)
	w = r.Worker("a", func(d *refresher.Options) {
		d.Now = func() time.Time { // stopped after a reading: what follows goes by an old one
			now := r.Clock.Now()
			stopped()
			return now
		}
		d.Mesh = must(refresher.NewMesh(refresher.MeshOptions{URL: mesh.URL, Timeout: patience, Now: func() time.Time {
			stopped()
			return r.Clock.Now()
		}}))
	})
	putOff := 0
	for n := int64(1); ; n++ {
		g := r.Connect(w, meshsim.ConnectSpec{})
		current.Store(g)
		readings.Store(0)
		stopAt.Store(n)
		err := w.HandleDue(t.Context(), due(g))
		if readings.Load() < n {
			require.NoError(t, err)
			break
		}
		stopAt.Store(0)
		if err != nil {
			putOff++
			var later *refresher.LaterError
			require.ErrorAs(t, err, &later)
			require.Equal(t, "lease", later.Why)
			got := r.Get(w, g.ID)
			require.Nil(t, got.Lease)
			require.Nil(t, got.Unknown, "nothing was presented")
			require.Zero(t, got.Attempts)
			require.Equal(t, g.Due.At.UTC(), got.Due.At.UTC())
			require.NoError(t, w.HandleDue(t.Context(), due(g)), "the message comes again")
		}
		require.Equal(t, int64(2), r.Get(w, g.ID).Version)
		r.RequireSoundTokens(w, g.ID)
	}
	require.GreaterOrEqual(t, putOff, 3)
}

// TestABodyIsNotReadAfterItsTime: the connection takes so long that the time is
// over which was left before.
func TestABodyIsNotReadAfterItsTime(t *testing.T) {
	for _, l := range []link{plainHTTP, tlsBoth} {
		for name, c := range map[string]struct {
			took time.Duration
			sent int
		}{"in time": {time.Second, 1}, "too late": {time.Second + 1, 0}} {
			t.Run(l.name+"/"+name, func(t *testing.T) {
				p := newPeer(t, l, func(e *exchange) {
					if e.receive() {
						e.answer()
					}
				})
				clock := newClock(t0)
				m := p.mesh(t, func(o *refresher.MeshOptions) { o.Now = clock.Now })
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { clock.Advance(c.took) }})
				r := request
				r.NotAfter = t0.Add(time.Second)
				_, err := m.Refresh(ctx, r)
				presented, _ := p.count("canary-refresh")
				require.Equal(t, c.sent, presented)
				if c.sent > 0 {
					require.NoError(t, err)
					return
				}
				f := refresher.AsFailure(err)
				require.Equal(t, refresher.Uncalled, f.Class)
				require.False(t, f.Ambiguous)
			})
		}
	}
}

// TestAWorkerThatWasStoppedPresentsNothingThatItsSuccessorReplaced stops a worker
// between its lease and its call until another has taken the lease over.
func TestAWorkerThatWasStoppedPresentsNothingThatItsSuccessorReplaced(t *testing.T) {
	r := newRig(t)
	stopped, goOn := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	a := r.Worker("a", func(d *refresher.Options) {
		d.Mesh = must(refresher.NewMesh(refresher.MeshOptions{URL: r.MeshURL, Timeout: patience, Now: func() time.Time {
			if first.CompareAndSwap(false, true) {
				close(stopped)
				<-goOn
			}
			return r.Clock.Now()
		}}))
	})
	b := r.Worker("b")
	g := r.Connect(a, meshsim.ConnectSpec{})
	done := r.inBackground(a, due(g))
	r.Wait(stopped)
	r.Clock.Advance(2 * time.Minute)
	require.NoError(t, b.HandleDue(t.Context(), due(g)))
	won := r.Get(b, g.ID)
	close(goOn)
	require.NoError(t, r.Result(done), "its message is out of date")
	require.Equal(t, 1, r.Calls())
	require.Equal(t, won, r.Get(b, g.ID))
	r.RequireSoundTokens(b, g.ID)
}

// observedJetStream is a JetStream that tells of reads of the recovery stream.
type observedJetStream struct {
	jetstream.JetStream
	recovery      string
	before, after func()
}

func (l observedJetStream) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := l.JetStream.Stream(ctx, name)
	if name == l.recovery {
		l.before()
		s = observedStream{s, l.after}
	}
	return s, err
}

type observedStream struct {
	jetstream.Stream
	after func()
}

func (l observedStream) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	msg, err := l.Stream.GetMsg(ctx, seq, opts...)
	if err != nil {
		l.after()
	}
	return msg, err
}

func (l observedStream) GetLastMsgForSubject(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	msg, err := l.Stream.GetLastMsgForSubject(ctx, subject)
	if err != nil {
		l.after()
	}
	return msg, err
}

// The moments of the second holder at which something of the first can come in.
const (
	beforeTheLease = iota
	beforeTheCheck
	afterTheCheck
	afterTheRefresh
	moments
)

// TestAReplacedTokenIsNotPresented has a first holder get its answer, and lose
// its lease meanwhile; and the answer become known at each moment of the second
// holder's refresh: saved by the first holder, or rescued and then applied by
// whoever consumes the recovery stream. Once it is known, the token that it
// replaced is not presented. What becomes known after the second holder has
// checked can't be waited for: then all is well afterwards.
func TestAReplacedTokenIsNotPresented(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, taken := range []string{"taken over", "given back, outcome unknown"} {
		for known := range moments {
			for applied := known; applied < moments; applied++ {
				for _, saved := range []bool{true, false} {
					if saved && applied > known {
						continue
					}
					t.Run(fmt.Sprintf("%s, known at %d, applied at %d, saved %v", taken, known, applied, saved), func(t *testing.T) {
						(&interleaving{rig: r, t: t, known: known, applied: applied, saved: saved, unknown: taken != "taken over"}).run()
					})
				}
			}
		}
	}
}

type interleaving struct {
	*rig
	t              *testing.T
	known, applied int
	saved, unknown bool

	a     *worker
	grant *store.Grant
	first <-chan error
	seen  int
}

func (i *interleaving) run() {
	t, id := i.T, fmt.Sprint("account-", len(i.Sim.Ledger().Requests), i.known, i.applied, i.saved, i.unknown)
	i.a = i.Worker("a")
	b := i.Worker("b", func(d *refresher.Options) {
		d.JetStream = observedJetStream{d.JetStream, i.Subjects.RecoveryStream(), func() { i.reach(beforeTheCheck) }, func() { i.reach(afterTheCheck) }}
	})
	// What the second holder presents without knowing better is taken.
	grace := meshsim.Institution{Grace: hour, GraceMode: meshsim.GraceRotate, AccessLifetime: hour, RefreshLifetime: 90 * day}
	i.grant = i.Connect(i.a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: id}}, Institution: &grace})
	i.Block(id)
	i.first = i.inBackground(i.a, due(i.grant))
	i.Wait(i.Blocked)
	i.Clock.Advance(2 * time.Minute)
	g := i.Get(i.a, i.grant.ID)
	if i.unknown { // somebody took it over, and got no answer that says anything
		g.Lease, g.Unknown, g.Epoch = nil, new(i.Clock.Now()), g.Epoch+1
		require.NoError(t, i.a.Store.Save(t.Context(), g))
	}
	before := i.Calls()
	i.reach(beforeTheLease)
	require.NoError(t, b.HandleDue(t.Context(), due(g)))
	presented := i.Calls() - before
	i.reach(afterTheRefresh)

	// In the stream after the check, and not applied: nobody could know.
	unseen := i.known == afterTheCheck && i.applied == afterTheRefresh
	if i.known < afterTheRefresh && !unseen {
		require.Zero(t, presented, "a token known to be replaced was presented")
	}
	got := i.Get(b, g.ID)
	require.Equal(t, store.Active, got.State)
	set, err := b.Tokens(t.Context(), got)
	require.NoError(t, err)
	valid, why := i.Sim.Ledger().RefreshTokenState(set.RefreshToken)
	require.True(t, valid, why)
}

// reach does what is to be done at a moment, once.
func (i *interleaving) reach(moment int) {
	for ; i.seen <= moment; i.seen++ {
		if i.seen == i.known {
			i.FailWrites(!i.saved)
			i.Unblock <- struct{}{}
			require.NoError(i.T, i.Result(i.first))
			i.FailWrites(false)
		}
		if i.seen == i.applied && !i.saved {
			s, err := i.JS.Stream(i.T.Context(), i.Subjects.RecoveryStream())
			require.NoError(i.T, err)
			msg, err := s.GetLastMsgForSubject(i.T.Context(), i.Subjects.Recovery(i.grant.ID))
			require.NoError(i.T, err)
			require.NoError(i.T, i.a.Recover(i.T.Context(), msg.Data))
			require.NoError(i.T, s.DeleteMsg(i.T.Context(), msg.Sequence))
		}
	}
}

// TestAllRescuedAnswersAreApplied: neither the first nor the last need be the
// newest.
func TestAllRescuedAnswersAreApplied(t *testing.T) {
	for _, newestFirst := range []bool{true, false} {
		t.Run(fmt.Sprint("newest first ", newestFirst), func(t *testing.T) {
			r := newRig(t)
			a, b, c := r.Worker("a"), r.Worker("b"), r.Worker("c")
			grace := meshsim.Institution{Grace: hour, GraceMode: meshsim.GraceRotate, AccessLifetime: hour, RefreshLifetime: 90 * day}
			g := r.Connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}, Institution: &grace})
			r.Block("one")
			first := r.inBackground(a, due(g))
			r.Wait(r.Blocked)
			r.Clock.Advance(2 * time.Minute)
			r.FailWrites(true)
			require.NoError(t, b.HandleDue(t.Context(), due(g)))
			r.Unblock <- struct{}{}
			require.NoError(t, r.Result(first))
			r.FailWrites(false)
			entries := r.RecoveryEntries()
			require.Len(t, entries, 2)
			if !newestFirst { // as if the first had been quicker
				s, err := r.JS.Stream(t.Context(), r.Subjects.RecoveryStream())
				require.NoError(t, err)
				require.NoError(t, s.Purge(t.Context()))
				for _, entry := range [][]byte{entries[1], entries[0]} {
					_, err := r.JS.Publish(t.Context(), r.Subjects.Recovery(g.ID), entry)
					require.NoError(t, err)
				}
			}

			r.Clock.Advance(2 * time.Minute)
			require.NoError(t, c.HandleDue(t.Context(), due(g)))
			require.Equal(t, 2, r.Calls(), "nothing was to be presented")
			got := r.Get(c, g.ID)
			require.Equal(t, int64(2), got.Applied)
			set, err := c.Tokens(t.Context(), got)
			require.NoError(t, err)
			valid, why := r.Sim.Ledger().RefreshTokenState(set.RefreshToken)
			require.True(t, valid, why)
		})
	}
}

// TestAnAnswerIsNotSealedUnderAKeyThatIsOver: such a key may be pruned already.
func TestAnAnswerIsNotSealedUnderAKeyThatIsOver(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.Block("one")
	done := r.inBackground(w, due(g))
	r.Wait(r.Blocked)
	r.Clock.Advance(30 * hour) // the machine sleeps over it
	r.Unblock <- struct{}{}
	require.NoError(t, r.Result(done))
	got := r.Get(w, g.ID)
	require.Equal(t, int64(2), got.Version)
	require.NotEqual(t, g.Sealed.KeyID, got.Sealed.KeyID)
}
