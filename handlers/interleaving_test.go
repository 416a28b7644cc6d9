package handlers_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// Whatever the order of connects, refreshes, disconnects, deliveries and cut-off
// work, by whichever worker: no refresh token is presented once its replacement is
// known, no answer is lost, and whoever connected last has a token that works.
func TestAnyInterleavingKeepsTheChain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var workers []*resolving
	for _, id := range []string{"a", "b"} {
		w := &resolving{}
		w.worker = r.Worker(id, func(d *refresher.Options) {
			d.Resolve = func(ctx context.Context, user string) error { return w.Connector.Resolve(ctx, user) }
		})
		w.Connector = r.connector(w.worker)
		workers = append(workers, w)
	}
	for seed := range histories(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rapid.MakeFuzz(func(rt *rapid.T) { (&history{rig: r, rt: rt, workers: workers}).play(fmt.Sprint(seed)) })(t, drawn(seed))
		})
	}
}

// histories is how many histories are played. Each is the same in every run; more of
// them explore further.
func histories(t *testing.T) uint64 {
	n, err := strconv.ParseUint(cmp.Or(os.Getenv("LATCHKEY_TEST_HISTORIES"), "30"), 10, 32)
	require.NoError(t, err)
	return n
}

// drawn are the draws of a history.
func drawn(seed uint64) []byte {
	out, from := make([]byte, 32<<10), rand.NewPCG(seed, 0)
	for at := 0; at < len(out); at += 8 {
		binary.LittleEndian.PutUint64(out[at:], from.Uint64())
	}
	return out
}

func (i *history) play(name string) {
	i.users, i.accounts = []string{"one of " + name, "two of " + name}, []string{"a of " + name, "b of " + name}
	i.outlived = map[*meshsim.Connection]bool{}
	i.before = len(i.Sim.Ledger().ReplacedPresented())
	actions := map[string]func(){
		"log in": i.logIn, "publish again": i.publishAgain, "disconnect": i.disconnect,
		"deliver": i.deliver, "deliver, cut off": i.deliverCutOff,
		"refresh": i.refresh, "refresh into the recovery stream": i.refreshElsewhere, "begin a refresh": i.beginRefresh, "end it": i.endRefresh,
		"recover": i.recover,
	}
	names := slices.Sorted(maps.Keys(actions))
	i.logIn()
	i.Clock.Advance(time.Second)
	for range rapid.IntRange(1, 14).Draw(i.rt, "steps") {
		actions[rapid.SampledFrom(names).Draw(i.rt, "action")]()
		i.Clock.Advance(time.Second)
	}
	i.settle()
	i.check()
}

// resolving is a worker whose refreshes sort out accounts.
type resolving struct {
	*worker
	*handlers.Connector
}

// published is a message to a worker.
type published struct {
	user string
	at   time.Time
	// A connect brings the accounts of a login; a disconnect has none, and takes
	// one account or, where that is empty, all.
	login    *meshsim.Connection
	accounts []string
	delayed  bool
	account  string

	delivered bool
}

// history is one run, and what it expects.
type history struct {
	*rig
	rt              *rapid.T
	workers         []*resolving
	users, accounts []string
	messages        []*published
	// A user has disconnected; a connect was published again as if it was new.
	disconnected, repeated bool
	outlived               map[*meshsim.Connection]bool // see outlive
	underWay               chan error                   // the refresh that is held; nil: none
	before                 int                          // refresh tokens that earlier runs presented too often
}

func (i *history) any() *resolving { return rapid.SampledFrom(i.workers).Draw(i.rt, "worker") }

func (i *history) user() string { return rapid.SampledFrom(i.users).Draw(i.rt, "user") }

// logIn has a user log in, and publishes that: whole, each account by itself, or
// without access tokens.
func (i *history) logIn() {
	accounts := [][]string{i.accounts, i.accounts[:1], i.accounts[1:]}[rapid.IntRange(0, 2).Draw(i.rt, "accounts")]
	login, user, at := i.login(accounts...), i.user(), i.Clock.Now()
	switch rapid.SampledFrom([]string{"whole", "each", "delayed"}).Draw(i.rt, "form") {
	case "whole":
		i.messages = append(i.messages, &published{user: user, at: at, login: login, accounts: accounts})
	case "each":
		for _, a := range accounts {
			i.messages = append(i.messages, &published{user: user, at: at, login: login, accounts: []string{a}})
		}
	case "delayed":
		i.messages = append(i.messages, &published{user: user, at: at, login: login, accounts: accounts, delayed: true})
	}
}

// publishAgain publishes a connect again: as it was, or without its time, or for another user.
func (i *history) publishAgain() {
	var connects []*published
	for _, m := range i.messages {
		if m.login != nil {
			connects = append(connects, m)
		}
	}
	again := *rapid.SampledFrom(connects).Draw(i.rt, "connect")
	before := again.at
	again.delivered = false
	switch rapid.SampledFrom([]string{"as it was", "without its time", "for another"}).Draw(i.rt, "again") {
	case "without its time":
		again.at = i.Clock.Now()
	case "for another":
		again.user, again.at = i.user(), i.Clock.Now()
	}
	i.repeated = i.repeated || !again.at.Equal(before)
	if i.disconnected && !again.at.Equal(before) {
		i.outlive()
	}
	i.messages = append(i.messages, &again)
}

func (i *history) disconnect() {
	if i.repeated || slices.ContainsFunc(i.messages, func(m *published) bool { return !m.delivered }) {
		i.outlive()
	}
	i.disconnected = true
	account := rapid.SampledFrom(append([]string{""}, i.accounts...)).Draw(i.rt, "account")
	i.messages = append(i.messages, &published{user: i.user(), at: i.Clock.Now(), account: account})
}

// outlive notes that connects of the logins of now may come after a disconnect that has
// erased what refreshes have made of their refresh tokens: nothing can come of them.
func (i *history) outlive() {
	for _, m := range i.messages {
		if m.login != nil {
			i.outlived[m.login] = true
		}
	}
}

// deliver hands a message to a worker; one that was delivered may come again.
func (i *history) deliver() {
	i.handle(i.any(), rapid.SampledFrom(i.messages).Draw(i.rt, "message"))
}

// deliverCutOff does so while the worker's writes fail from one on, as when it is killed.
func (i *history) deliverCutOff() {
	left := rapid.Int32Range(0, 4).Draw(i.rt, "writes")
	i.DB.Proxy().FailWrites(91, func(_, collection string) bool {
		return collection == "grants" && atomic.AddInt32(&left, -1) < 0
	})
	defer i.DB.Proxy().FailWrites(0, nil)
	m := rapid.SampledFrom(i.messages).Draw(i.rt, "message")
	before := m.delivered
	if err := i.apply(i.any(), m); err != nil {
		m.delivered = before
	}
}

func (i *history) handle(w *resolving, m *published) {
	var leased *store.LeasedError
	if err := i.apply(w, m); !errors.As(err, &leased) {
		require.NoError(i.rt, err)
	}
}

func (i *history) apply(w *resolving, m *published) error {
	var err error
	switch {
	case m.login == nil:
		scope := store.Scope{User: m.user}
		if m.account != "" {
			scope.Broker, scope.Account = "coinbase", m.account
		}
		err = w.Disconnect(i.T.Context(), scope, m.at)
	case m.delayed:
		err = w.Connect(i.T.Context(), delayed(m.user, m.login.Accounts[0].RefreshToken), m.at)
	default:
		var which []int
		for at, a := range m.login.Accounts {
			if slices.Contains(m.accounts, a.AccountID) {
				which = append(which, at)
			}
		}
		err = w.Connect(i.T.Context(), wrapped(m.user, m.login, which...), m.at)
	}
	m.delivered = m.delivered || err == nil
	return err
}

// one returns a grant that may be refreshed; nil: there is none.
func (i *history) one(w *resolving) *store.Grant {
	all := slices.DeleteFunc(i.live(w.worker, i.users...), func(g *store.Grant) bool { return g.State != store.Active })
	if len(all) == 0 {
		return nil
	}
	return all[rapid.IntRange(0, len(all)-1).Draw(i.rt, "grant")]
}

// tolerated reports whether a refresh may end so: it is to come back later.
func tolerated(err error) bool {
	var leased *store.LeasedError
	var later *refresher.LaterError
	return err == nil || errors.As(err, &leased) || errors.As(err, &later) || errors.Is(err, store.ErrStale) || errors.Is(err, store.ErrNotFound)
}

func (i *history) refresh() {
	err := i.refreshOne()
	require.True(i.rt, tolerated(err), "%v", err)
}

func (i *history) refreshOne() (err error) {
	w := i.any()
	if g := i.one(w); g != nil {
		_, err = w.RefreshNow(context.Background(), g)
	}
	return err
}

// refreshElsewhere refreshes while the database does not take the answer.
func (i *history) refreshElsewhere() {
	i.FailWrites(true)
	defer i.FailWrites(false)
	_ = i.refreshOne() // what else it could not write is done later
}

// beginRefresh refreshes until the institution has done its work.
func (i *history) beginRefresh() {
	w := i.any()
	g := i.one(w)
	if g == nil || i.underWay != nil {
		return
	}
	tokens, err := w.Tokens(i.T.Context(), g)
	require.NoError(i.rt, err)
	chain, ok := i.Sim.Ledger().ChainOf(tokens.RefreshToken)
	require.True(i.rt, ok)
	i.Block(chain.Accounts[0].ID)
	done := make(chan error, 1)
	go func() { _, err := w.RefreshNow(context.Background(), g); done <- err }()
	select {
	case <-i.Blocked:
		i.underWay = done
	case err := <-done:
		require.True(i.rt, tolerated(err), "%v", err)
		i.Sim.Unscript(chain.Accounts[0].ID)
	case <-time.After(patience):
		require.FailNow(i.rt, "waited in vain")
	}
}

func (i *history) endRefresh() {
	if i.underWay != nil {
		i.Unblock <- struct{}{}
		require.NoError(i.rt, i.Result(i.underWay))
		i.underWay = nil
	}
}

// recover applies what the recovery stream holds; it may do so again.
func (i *history) recover() {
	w := i.any()
	for _, entry := range i.RecoveryEntries() {
		require.NoError(i.rt, w.Recover(i.T.Context(), entry))
	}
}

// settle lets everything come to its end.
func (i *history) settle() {
	i.endRefresh()
	i.recover()
	left := func(m *published) bool { return !m.delivered }
	for tries := 0; slices.ContainsFunc(i.messages, left); tries++ {
		require.Less(i.rt, tries, 5, "messages wait for ever")
		i.Clock.Advance(10 * time.Minute)
		for _, m := range i.messages {
			if left(m) {
				i.handle(i.any(), m)
			}
		}
	}
	i.Clock.Advance(10 * time.Minute)
	for range 3 { // the first may name accounts of which another grant is the newer owner
		for _, g := range i.live(i.workers[0].worker, i.users...) {
			_, err := i.workers[0].RefreshNow(context.Background(), g)
			require.True(i.rt, err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrStale), "%v", err)
			i.Clock.Advance(time.Second)
		}
	}
	i.recover()
	stream, err := i.JS.Stream(i.T.Context(), i.Subjects.RecoveryStream())
	require.NoError(i.rt, err)
	require.NoError(i.rt, stream.Purge(i.T.Context()))
}

func (i *history) check() {
	require.NoError(i.rt, i.Sim.WaitIdle(i.T.Context()))
	ledger := i.Sim.Ledger()
	require.Len(i.rt, ledger.ReplacedPresented(), i.before, "a refresh token was presented once its replacement was known")
	w := i.workers[0]
	owners := map[string][]string{} // of an account: users
	held := map[string]string{}
	for _, g := range i.live(w.worker, i.users...) {
		require.Equal(i.rt, store.Active, g.State, "%s", g.Reason)
		require.Nil(i.rt, g.Lease)
		tokens, err := w.Tokens(i.T.Context(), g)
		require.NoError(i.rt, err)
		valid, why := ledger.RefreshTokenState(tokens.RefreshToken)
		require.True(i.rt, valid, "an answer was lost: %s", why)
		require.NotContains(i.rt, held, tokens.RefreshToken.Reveal(), "two grants hold one refresh token")
		held[tokens.RefreshToken.Reveal()] = g.ID
		for _, a := range g.Accounts {
			require.NotContains(i.rt, owners[a.ID], g.UserID, "two grants have an account")
			owners[a.ID] = append(owners[a.ID], g.UserID)
			valid, why := ledger.AccessTokenState(tokens.Account(a.ID).AccessToken)
			require.True(i.rt, valid, why)
		}
	}
	for _, account := range i.accounts {
		var shared []string
		for _, user := range i.users {
			last := i.lastWord(user, account)
			switch {
			case last == nil:
			case last.login == nil:
				require.NotContains(i.rt, owners[account], user, "disconnected")
			case i.outlived[last.login]:
			case !i.shared(last.login):
				require.Contains(i.rt, owners[account], user, "connected last")
			case !i.disconnected && slices.Contains(i.newest(last.login).accounts, account):
				shared = append(shared, user)
			}
		}
		if len(shared) > 0 {
			require.NotEmpty(i.rt, owners[account], "one of %v has it", shared)
		}
	}
}

// lastWord returns what a user said last about an account.
func (i *history) lastWord(user, account string) (last *published) {
	for _, m := range i.messages {
		about := m.login != nil && slices.Contains(m.accounts, account) || m.login == nil && (m.account == "" || m.account == account)
		if m.user == user && about && (last == nil || !m.at.Before(last.at)) {
			last = m
		}
	}
	return last
}

// newest returns the connect of a login that counts.
func (i *history) newest(login *meshsim.Connection) (newest *published) {
	for _, m := range i.messages {
		if m.login == login && (newest == nil || !m.at.Before(newest.at)) {
			newest = m
		}
	}
	return newest
}

// shared reports whether two users connected with a login.
func (i *history) shared(login *meshsim.Connection) bool {
	users := map[string]bool{}
	for _, m := range i.messages {
		if m.login == login {
			users[m.user] = true
		}
	}
	return len(users) > 1
}
