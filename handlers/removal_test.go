package handlers_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// remover is Mesh as far as removals go: it answers one after the other, and the last
// for ever.
type remover struct {
	mu      sync.Mutex
	answers []string // "status body"; "" closes the connection
	asked   []string // access tokens
	before  func()   // an answer
	// status is what GET /api/v1/status answers; 0: 200.
	status int
}

func (m *remover) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && r.URL.Path == "/api/v1/status" {
		w.WriteHeader(max(m.status, 200))
		return
	}
	var in struct{ AuthToken, Type string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	m.mu.Lock()
	m.asked = append(m.asked, in.AuthToken)
	answer := m.answers[0]
	if len(m.answers) > 1 {
		m.answers = m.answers[1:]
	}
	m.mu.Unlock()
	if m.before != nil {
		m.before()
	}
	status, body, _ := strings.Cut(answer, " ")
	code, _ := strconv.Atoi(status) // 0 for "", which closes the connection
	if r.Method != http.MethodDelete || r.URL.Path != "/api/v1/account" || in.Type != "coinbase" || code == 0 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body))
}

func (m *remover) calls() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.asked...)
}

func replaceUnnamed(n int) (accounts []meshsim.Account) {
	for i := range n {
		accounts = append(accounts, meshsim.Account{ID: string(rune('a' + i)), Name: "Account"})
	}
	return accounts
}

// removing is a worker with a grant of some accounts that was just disconnected.
func removing(t *testing.T, mesh *remover, accounts int, change ...func(*store.Grant)) (r *rig, w *worker, c *handlers.Connector, g *store.Grant) {
	t.Helper()
	r = newRig(t)
	server := httptest.NewServer(mesh)
	t.Cleanup(server.Close)
	r.MeshURL = server.URL
	w = r.Worker("w")
	g = r.Connect(w, meshsim.ConnectSpec{Accounts: replaceUnnamed(accounts)}, change...)
	c = r.connector(w, func(o *handlers.ConnectorOptions) { o.RemoveAtMesh, o.Remember = true, time.Hour })
	require.NoError(t, c.Disconnect(t.Context(), store.Scope{User: "user"}, r.Clock.Now()))
	r.WaitSent()
	return r, w, c, g
}

// untilGone has the removals tried when they are due until the record is gone, and
// returns how long that took.
func untilGone(r *rig, w *worker, id string) time.Duration {
	r.T.Helper()
	began := r.Clock.Now()
	for range 300 {
		require.NoError(r.T, w.Reconciler.Removals(r.T.Context()))
		r.WaitSent()
		g, err := w.Store.Get(r.T.Context(), id)
		if err != nil {
			require.ErrorIs(r.T, err, store.ErrNotFound)
			return r.Clock.Now().Sub(began)
		}
		require.True(r.T, g.Removal.Due.After(r.Clock.Now()))
		r.Clock.Advance(g.Removal.Due.Sub(r.Clock.Now()) + time.Millisecond)
	}
	require.FailNow(r.T, "a removal without end")
	return 0
}

func TestRemovalsAtMeshEnd(t *testing.T) {
	long := func(g *store.Grant) { g.Access = nil } // no end is known
	ended := func(g *store.Grant) { end := g.ConnectedAt; g.Access.ExpiresAt = &end }
	for name, c := range map[string]struct {
		answers []string
		change  func(*store.Grant)
		reason  events.Reason
		calls   int // 0: many
		least   time.Duration
		most    time.Duration
		status  int // of GET /api/v1/status
	}{
		"ok":                         {[]string{`200 {"status":"ok"}`}, long, events.ReasonRemoved, 1, 0, 0, 0},
		"404":                        {[]string{`404 nothing`}, long, events.ReasonRemoved, 1, 0, 0, 0},
		"no content":                 {[]string{`204`}, long, events.ReasonRemoved, 1, 0, 0, 0},
		"not found":                  {[]string{`200 {"status":"notFound"}`}, long, events.ReasonRemoved, 1, 0, 0, 0},
		"failures in a 200":          {[]string{`200 {"status":"serverFailure"}`, `200 {"status":"locked"}`, `200 {"status":"what"}`, `200 {"error":"away"}`, `200 <html>`, `200 {"status":"ok"}`}, long, events.ReasonRemoved, 6, time.Second, time.Hour, 0},
		"failures":                   {[]string{`500 {"status":"ok"}`, `503 {"status":"notFound"}`, `429 {"status":"ok"}`, `302 {"status":"ok"}`, ``, `400 {"status":"badRequest"}`, `404`}, long, events.ReasonRemoved, 7, time.Second, time.Hour, 0},
		"away for days":              {[]string{``}, long, events.ReasonRemovalTimedOut, 0, 7 * 24 * time.Hour, 8 * 24 * time.Hour, 0},
		"away, and the token ends":   {[]string{`500`}, ended, events.ReasonRemovalTimedOut, 0, 7 * 24 * time.Hour, 8 * 24 * time.Hour, 0},
		"refused":                    {[]string{`401`}, long, events.ReasonRemovalRefused, 0, 24 * time.Hour, 36 * time.Hour, 0},
		"refused in a 200":           {[]string{`200 {"status":"badRequest"}`}, long, events.ReasonRemovalRefused, 0, 24 * time.Hour, 36 * time.Hour, 0},
		"for legal reasons":          {[]string{`451`}, long, events.ReasonRemovalRefused, 0, 24 * time.Hour, 36 * time.Hour, 0},
		"refused after its end":      {[]string{`401`}, ended, events.ReasonRemovalRefused, 0, 24 * time.Hour, 36 * time.Hour, 0},
		"bad request after its end":  {[]string{`500`, `400 {"status":"badRequest","message":"Unauthorized token"}`}, ended, events.ReasonRemovalRefused, 0, 24 * time.Hour, 36 * time.Hour, 0},
		"refused once":               {[]string{`401`, `200 {"status":"ok"}`}, ended, events.ReasonRemoved, 2, time.Second, time.Hour, 0},
		"our own credentials":        {[]string{`401`}, ended, events.ReasonRemovalTimedOut, 0, 7 * 24 * time.Hour, 8 * 24 * time.Hour, 401},
		"whose refusal, nobody says": {[]string{`401`}, ended, events.ReasonRemovalTimedOut, 0, 7 * 24 * time.Hour, 8 * 24 * time.Hour, 503},
		"a firewall":                 {[]string{`403 <html>`}, ended, events.ReasonRemovalTimedOut, 0, 7 * 24 * time.Hour, 8 * 24 * time.Hour, 0},
		"a proxy":                    {[]string{`400 <html>`}, ended, events.ReasonRemovalTimedOut, 0, 7 * 24 * time.Hour, 8 * 24 * time.Hour, 0},
		"denied":                     {[]string{`403 {"status":"permissionDenied"}`, `200 {"status":"permissionDenied"}`}, ended, events.ReasonRemovalTimedOut, 0, 7 * 24 * time.Hour, 8 * 24 * time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mesh := &remover{answers: c.answers, status: c.status}
			r, w, _, g := removing(t, mesh, 1, c.change)
			require.Equal(t, []string{"token.revoked: disconnected"}, r.LifecycleEvents("user"), "erased first")
			require.Empty(t, mesh.calls())
			kept := r.Get(w, g.ID)
			require.Equal(t, store.Revoked, kept.State)
			set, err := w.Tokens(t.Context(), kept)
			require.NoError(t, err)
			require.True(t, set.RefreshToken.Empty() && set.TradeToken.Empty() && set.Origin == "", "more is kept than a removal takes")
			require.Empty(t, kept.BrokerName+kept.Accounts[0].Name)

			took := untilGone(r, w, g.ID)
			require.Equal(t, []string{"token.revoked: disconnected", "token.removal: " + string(c.reason)}, r.LifecycleEvents("user"))
			require.True(t, c.least <= took && took <= max(c.most, time.Millisecond), took)
			if c.calls > 0 {
				require.Len(t, mesh.calls(), c.calls)
			}
			require.Less(t, len(mesh.calls()), 80)
		})
	}
}

// A try that failed announces nothing of a grant whose accounts are not known.
func TestAFailedRemovalOfUnknownAccountsIsNotAnnounced(t *testing.T) {
	mesh := &remover{answers: []string{`503`, `200 {"status":"ok"}`}}
	r, w, _, g := removing(t, mesh, 1, func(g *store.Grant) { g.Access, g.Accounts = nil, nil })
	require.NoError(t, w.Reconciler.Removals(t.Context()))
	require.Equal(t, []string{"token.revoked: disconnected"}, r.LifecycleEvents("user"))
	untilGone(r, w, g.ID)
	require.Equal(t, []string{"token.revoked: disconnected", "token.removal: removed"}, r.LifecycleEvents("user"))
}

// TestARemovalNamesTheAccountsThatItIsTrueOf, and asks for none twice.
func TestARemovalNamesTheAccountsThatItIsTrueOf(t *testing.T) {
	t.Parallel()
	mesh := &remover{answers: []string{`200 {"status":"ok"}`, `400 {"status":"bad_request"}`}}
	r, w, _, g := removing(t, mesh, 2)
	untilGone(r, w, g.ID)
	require.Equal(t, []string{"token.revoked: disconnected", "token.removal: removed", "token.removal: removal_refused"}, r.LifecycleEvents("user"))
	var named []string
	for _, m := range r.Messages(r.Subjects.LifecycleStream(), ">")[1:] {
		e, err := events.DecodeLifecycle(m.Data)
		require.NoError(t, err)
		require.Len(t, e.Data.Accounts, 1)
		named = append(named, e.Data.Accounts[0].AccountID)
	}
	require.ElementsMatch(t, g.AccountIDs(), named)
	calls := mesh.calls()
	require.NotContains(t, calls[1:], calls[0])
}

// TestAnAccountWithoutAnAccessTokenIsToldOf once, beside one that has one.
func TestAnAccountWithoutAnAccessTokenIsToldOf(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string][]string{"at once": {`204`}, "after a failure": {`500`, `204`}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, _, g := removing(t, &remover{answers: answers}, 1, func(g *store.Grant) {
				g.Accounts = append(g.Accounts, store.Account{ID: "without"})
			})
			untilGone(r, w, g.ID)
			told := r.LifecycleEvents("user")
			require.ElementsMatch(t, []string{"token.revoked: disconnected", "token.removal: removed", "token.removal: no_access_token"}, told)
			for i, m := range r.Messages(r.Subjects.LifecycleStream(), ">") {
				e, err := events.DecodeLifecycle(m.Data)
				require.NoError(t, err)
				if told[i] == "token.removal: no_access_token" {
					require.Len(t, e.Data.Accounts, 1)
					require.Equal(t, "without", e.Data.Accounts[0].AccountID)
				}
			}
		})
	}
}

// TestWhatIsConnectedAgainIsNotRemoved: neither before the first try nor between two,
// by the same grant or by another one of the user.
func TestWhatIsConnectedAgainIsNotRemoved(t *testing.T) {
	t.Parallel()
	mesh := &remover{answers: []string{`500`}}
	r, w, c, g := removing(t, mesh, 2)
	require.NoError(t, w.Reconciler.Removals(t.Context()))
	require.Len(t, mesh.calls(), 2)
	r.Clock.Advance(time.Hour)
	in, err := events.DecodeConnected([]byte(`{"userId":"user","payload":{"accessToken":{"brokerType":"Coinbase","brokerName":"C","accountTokens":[
		{"account":{"accountId":"` + g.Accounts[0].ID + `"},"accessToken":"new-a","refreshToken":"new-r"}]}}}`))
	require.NoError(t, err)
	require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
	require.NoError(t, w.Reconciler.Removals(t.Context()))
	require.Len(t, mesh.calls(), 3, "only the other account's")
	kept := r.Get(w, g.ID)
	require.Equal(t, []string{g.Accounts[1].ID}, kept.AccountIDs())
	r.Clock.Advance(time.Hour)

	// And while a call of another account is under way.
	mesh.before = func() {
		in, err := events.DecodeConnected([]byte(`{"userId":"user","payload":{"delayedAuth":{"brokerType":"coinbase","refreshToken":"later"}}}`))
		require.NoError(t, err)
		require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
	}
	require.NoError(t, w.Reconciler.Removals(t.Context()))
	require.Len(t, mesh.calls(), 4)
	r.Clock.Advance(6 * time.Hour)
	require.NoError(t, w.Reconciler.Removals(t.Context()))
	require.Len(t, mesh.calls(), 4, "it may be that account")
	_, err = w.Store.Get(t.Context(), g.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
}

// TestARemovalOutlivesKMS: the erasure does not wait for KMS, and no key that a
// removal needs is pruned.
func TestARemovalOutlivesKMS(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.Worker("first")
	g := r.Connect(first, meshsim.ConnectSpec{})
	r.KMS.URL = "http://127.0.0.1:1"
	cut := r.Worker("cut")
	c := r.connector(cut, func(o *handlers.ConnectorOptions) { o.RemoveAtMesh, o.Remember = true, time.Hour })
	require.NoError(t, c.Disconnect(t.Context(), store.Scope{User: "user"}, r.Clock.Now()))
	kept := r.Get(cut, g.ID)
	require.Equal(t, store.Revoked, kept.State)
	require.Error(t, cut.Reconciler.Removals(t.Context()))
	uses, err := cut.Store.KeyUses(t.Context(), kept.Sealed.KeyID)
	require.NoError(t, err)
	require.NotEmpty(t, uses)
	r.Clock.Advance(5 * time.Minute)
	require.NoError(t, first.Reconciler.Removals(t.Context()), "the simulated institution removes it")
	_, err = first.Store.Get(t.Context(), g.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Equal(t, []string{"token.revoked: disconnected", "token.removal: removed"}, r.LifecycleEvents("user"))
}

// TestAnErasureWaitsForNoKMS, whatever else there is to be sorted out among the user's
// grants: an earlier release wrote some without a chain, and accounts may wait to be split
// off. A connect waits.
func TestAnErasureWaitsForNoKMS(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*store.Grant){
		"without a chain": func(g *store.Grant) { g.Chain = nil },
		"to be split":     func(g *store.Grant) { g.HasSeparateRefreshTokens = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			first := r.Worker("first")
			g, other := r.Connect(first, meshsim.ConnectSpec{}), r.Connect(first, meshsim.ConnectSpec{BrokerType: "kraken"})
			for _, id := range []string{g.ID, other.ID} {
				before := r.Get(first, id)
				change(before)
				require.NoError(t, first.Store.Save(t.Context(), before))
			}
			r.KMS.URL = "http://127.0.0.1:1"
			cut := r.Worker("cut")
			c := r.connector(cut, func(o *handlers.ConnectorOptions) { o.Remember = time.Hour })
			require.ErrorIs(t, c.Resolve(t.Context(), "user"), envelope.ErrKMS)
			require.NoError(t, c.Disconnect(t.Context(), store.Scope{User: "user", Broker: "coinbase"}, r.Clock.Now()))
			_, err := cut.Store.Get(t.Context(), g.ID)
			if err == nil {
				require.Equal(t, store.Revoked, r.Get(cut, g.ID).State)
			}
			require.Equal(t, store.Active, r.Get(cut, other.ID).State)
			require.Equal(t, []string{"token.revoked: disconnected"}, r.LifecycleEvents("user"))
		})
	}
}
