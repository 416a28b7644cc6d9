package refreshertest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/clocktest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// Lasting is a token's lifetime that ends.
func Lasting(since time.Time, d time.Duration) *store.Lifetime {
	return &store.Lifetime{Since: since, ExpiresAt: new(since.Add(d))}
}

// Endless is a token's lifetime without a known end.
func Endless(since time.Time) *store.Lifetime { return &store.Lifetime{Since: since} }

// Due is the message that says a grant is due.
func Due(g *store.Grant) events.RefreshDue {
	return events.RefreshDue{GrantID: g.ID, BrokerType: g.BrokerType, Version: g.Version, DueAt: g.Due.At, Call: refresher.NeedsCall(g, g.Due.At)}
}

// Settler settles by a clock, with chance as every random number. Lead and clock skew
// of its policy are zero.
func Settler(c *clocktest.Clock, chance float64) refresher.Settler {
	return settler(atOnce(), c, chance)
}

// PunctualSettler is a [Settler] that plans with the default lead and clock skew.
func PunctualSettler(c *clocktest.Clock, chance float64) refresher.Settler {
	return settler(config.Default(), c, chance)
}

func settler(cfg config.Config, c *clocktest.Clock, chance float64) refresher.Settler {
	ids := 0
	s, err := refresher.NewSettler(refresher.SettlerOptions{
		Config: cfg, Now: c.Now, NewID: func() string { ids++; return fmt.Sprintf("event-%d", ids) }, Rand: func() float64 { return chance },
	})
	if err != nil {
		panic(err) // nothing is missing
	}
	return s
}

// atOnce is the default configuration for calls that take no time, and clocks that do not
// differ.
func atOnce() config.Config {
	c := config.Default()
	c.Mesh.Timeout, c.MongoDB.Timeout, c.Worker.ClockSkew = 0, 0, 0
	return c
}

// Connect has the simulator issue tokens and stores their grant, due now, as
// if it had just been scheduled.
func (r *Rig) Connect(w *Worker, spec meshsim.ConnectSpec, change ...func(*store.Grant)) *store.Grant {
	r.T.Helper()
	if spec.BrokerType == "" {
		spec.BrokerType = "coinbase"
	}
	connected, err := r.Sim.Connect(spec)
	require.NoError(r.T, err)
	now := r.Clock.Now()
	chain, _ := r.Sim.Ledger().Chain(connected.Accounts[0].AccountID)
	g := &store.Grant{
		UserID: "user", BrokerType: spec.BrokerType, BrokerName: spec.BrokerType, State: store.Active, ConnectedAt: now, Version: 1,
		Due:    &store.Due{At: now, Action: store.Refresh, Stream: w.Dispatcher.Streams()[0]},
		Access: Lasting(now, meshsim.DefaultAccessLifetime), Refresh: Lasting(now, meshsim.DefaultRefreshLifetime),
	}
	set := store.TokenSet{RefreshToken: connected.Accounts[0].RefreshToken}
	ids := make([]string, len(connected.Accounts))
	for i, a := range connected.Accounts {
		ids[i] = a.AccountID
		g.Accounts = append(g.Accounts, store.Account{ID: a.AccountID, Name: chain.Accounts[i].Name, ExpiresAt: g.Access.ExpiresAt})
		set.Accounts = append(set.Accounts, store.AccountToken{AccountID: a.AccountID, AccessToken: a.AccessToken})
	}
	g.ID = store.GrantID(g.UserID, g.BrokerType, ids...)
	for _, f := range change {
		f(g)
	}
	sealer, err := w.Fingerprints.Sealer(r.T.Context(), "user")
	require.NoError(r.T, err)
	sealer.SealTo(g, set, now, true)
	require.NoError(r.T, w.Store.Insert(r.T.Context(), g))
	return g
}

// Lifetimes are what institutions may say about the lifetime of their access tokens.
var Lifetimes = map[string]time.Duration{"of an hour": time.Hour, "of a minute": time.Minute, "that nobody states": 0}

// WithLifetime is for [Rig.Connect]: a grant of one account whose access token lives as
// long; 0: without an end that is known.
func WithLifetime(life time.Duration) (meshsim.ConnectSpec, func(*store.Grant)) {
	institution := meshsim.Institution{AccessLifetime: life, RevokeOldAccess: true}
	return meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}, Institution: &institution}, func(g *store.Grant) {
		g.Refresh = Endless(g.ConnectedAt)
		if g.Access = Endless(g.ConnectedAt); life > 0 {
			g.Access = Lasting(g.ConnectedAt, life)
		}
		g.Accounts[0].ExpiresAt = g.Access.ExpiresAt
		g.Due = refresher.NewPolicy(config.Default()).Next(g)
	}
}

// Get returns the stored grant, once workers have sent what they began to send.
func (r *Rig) Get(w *Worker, id string) *store.Grant {
	r.T.Helper()
	r.WaitSent()
	g, err := w.Store.Get(r.T.Context(), id)
	require.NoError(r.T, err)
	return g
}

// RequireSoundTokens checks that the stored tokens of a grant are the ones that the
// institution takes, and that no token was spent twice.
func (r *Rig) RequireSoundTokens(w *Worker, id string) {
	r.T.Helper()
	require.NoError(r.T, r.Sim.WaitIdle(r.T.Context()))
	set, err := w.Tokens(r.T.Context(), r.Get(w, id))
	require.NoError(r.T, err)
	ledger := r.Sim.Ledger()
	valid, why := ledger.RefreshTokenState(set.RefreshToken)
	require.True(r.T, valid, why)
	for _, a := range set.Accounts {
		valid, why := ledger.AccessTokenState(a.AccessToken)
		require.True(r.T, valid, why)
	}
	require.Empty(r.T, ledger.DoubleSpends())
}
