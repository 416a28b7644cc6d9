package handlers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// partial is a rig whose Mesh covers some accounts of a grant only.
type partial struct {
	*rig
	w      *worker
	server *meshsimtest.Server
	n      int
}

func newPartial(t *testing.T) *partial {
	p := &partial{rig: newRig(t), server: meshsimtest.NewServer(t)}
	p.MeshURL = p.server.URL
	p.w = p.Worker("a", refreshertest.PlanBy(func(c *config.Config) {
		c.Worker.ClockSkew, c.Mesh.Timeout = time.Second, time.Minute // the last try comes ahead of the end
	}))
	return p
}

// covers has the next answers bring access tokens for these accounts.
func (p *partial) covers(accounts ...string) {
	p.n++
	entries := ""
	for i, a := range accounts {
		if i > 0 {
			entries += ","
		}
		entries += fmt.Sprintf(`{"account":{"accountId":%q},"accessToken":"%s-%d"}`, a, a, p.n)
	}
	p.server.Set(meshsimtest.Content(`{"status":"succeeded","expiresInSeconds":3600,"brokerAccountTokens":[` + entries + `]}`))
}

// ask returns the access tokens that a caller gets, and what is unavailable.
func (p *partial) ask() (given map[string]string, ends map[string]*time.Time, unavailable map[string]events.UnavailableAccount) {
	p.T.Helper()
	tokens := p.tokenService(p.w, 0) // it has nothing in memory
	reply, err := tokens.Get(p.T.Context(), events.TokenRequest{UserID: "u"}, &audit.Record{})
	require.NoError(p.T, err)
	given, ends, unavailable = map[string]string{}, map[string]*time.Time{}, map[string]events.UnavailableAccount{}
	for i, token := range reply.AccessTokens {
		given[token.AccountID], ends[token.AccountID] = token.AccessToken.Reveal(), reply.Expiries[i].ExpiresAt
	}
	for _, u := range reply.Unavailable {
		unavailable[u.AccountID] = u
	}
	return given, ends, unavailable
}

// toldOf lists the events about a user with the accounts that they name.
func (p *partial) toldOf(user string) (all []string) {
	p.T.Helper()
	for _, m := range p.Messages(p.Subjects.LifecycleStream(), ">") {
		e, err := events.DecodeLifecycle(m.Data)
		require.NoError(p.T, err)
		if e.Data.UserID != user || e.Kind == events.TokenStored {
			continue
		}
		line := e.Kind + ": " + string(e.Data.Reason)
		for _, a := range e.Data.Accounts {
			line += " " + a.AccountID
		}
		all = append(all, line)
	}
	return all
}

// An account that answers do not cover is handed out to the end of its own token, asked
// for once more, told of, and handed out again once an answer covers it.
func TestWhatACallerGetsOfAnAccountThatAnswersDoNotCover(t *testing.T) {
	p := newPartial(t)
	login := p.login("one", "two")
	began := p.Clock.Now()
	require.NoError(t, p.connector(p.w).Connect(t.Context(), wrapped("u", login, 0, 1), began))
	g := p.live(p.w, "u")[0]
	old, end := login.Accounts[1].AccessToken.Reveal(), began.Add(hour)

	calls := 0
	for p.Clock.Now().Before(end.Add(-time.Minute)) {
		g = p.Get(p.w, g.ID)
		if next := g.Due.At.Sub(p.Clock.Now()); next > 0 {
			if !p.Clock.Now().Add(next).Before(end) {
				break
			}
			p.Clock.Advance(next)
		}
		p.covers("one")
		require.NoError(t, p.w.HandleDue(t.Context(), due(g)))
		calls++
		require.Less(t, calls, 4, "a loop")
		require.NoError(t, p.w.Reconciler.Pass(t.Context()))
		given, ends, unavailable := p.ask()
		require.Equal(t, map[string]string{"one": fmt.Sprint("one-", p.n), "two": old}, given)
		require.Equal(t, end, *ends["two"])
		require.True(t, ends["one"].After(end))
		require.Empty(t, unavailable)
	}
	require.Equal(t, 2, calls, "it is asked for once more")
	require.Equal(t, []string{"token.refreshed:  one", "token.refreshed:  one", "token.expiring: not_covered two"}, p.toldOf("u"))

	p.Clock.Advance(end.Sub(p.Clock.Now()) + time.Millisecond)
	given, _, unavailable := p.ask()
	require.Equal(t, map[string]string{"one": fmt.Sprint("one-", p.n)}, given)
	require.Equal(t, events.CodeExpired, unavailable["two"].Code)
	require.Equal(t, events.ReasonNotCovered, unavailable["two"].Reason)
	for range 2 {
		require.NoError(t, p.w.Reconciler.Pass(t.Context()))
		require.Equal(t, []string{"token.refreshed:  one", "token.refreshed:  one", "token.expiring: not_covered two", "token.expired: not_covered two"}, p.toldOf("u"), "once")
	}
	require.Nil(t, p.Get(p.w, g.ID).AccountsDue)

	p.covers("one", "two")
	p.refresh(p.w, p.Get(p.w, g.ID))
	given, _, unavailable = p.ask()
	require.Equal(t, map[string]string{"one": fmt.Sprint("one-", p.n), "two": fmt.Sprint("two-", p.n)}, given)
	require.Empty(t, unavailable)
	require.Contains(t, p.toldOf("u"), "token.refreshed:  one two")
}

// Where the refresh that was to ask once more fails, reconciliation announces the end of
// the account's token ahead of it, and that it has come.
func TestReconciliationAnnouncesTheEndsOfSingleAccounts(t *testing.T) {
	p := newPartial(t)
	began := p.Clock.Now()
	require.NoError(t, p.connector(p.w).Connect(t.Context(), wrapped("u", p.login("one", "two"), 0, 1), began))
	p.Clock.Advance(40 * time.Minute)
	p.covers("one")
	g := p.refresh(p.w, p.live(p.w, "u")[0])
	require.NotNil(t, g.AccountsDue)
	require.NoError(t, p.w.Reconciler.Pass(t.Context()))
	require.Equal(t, []string{"token.refreshed:  one"}, p.toldOf("u"), "not ahead of time")
	p.server.Set(meshsimtest.Response{Status: 500})
	p.Clock.Advance(g.AccountsDue.Sub(p.Clock.Now()) + time.Millisecond)
	require.True(t, p.Clock.Now().Before(began.Add(hour).Add(time.Second)))
	for range 2 {
		require.NoError(t, p.w.Reconciler.Pass(t.Context()))
	}
	require.Contains(t, p.toldOf("u"), "token.expiring: not_covered two")
	p.Clock.Advance(time.Hour / 2)
	for range 2 {
		require.NoError(t, p.w.Reconciler.Pass(t.Context()))
	}
	require.Equal(t, []string{"token.refreshed:  one", "token.expiring: not_covered two", "token.expired: not_covered two"}, p.toldOf("u"))
}

// The access token of an account that an answer did not cover is handed out to its end
// though that of the others ends before, while refreshes fail and after they are refused.
func TestALivingTokenIsHandedOutThoughTheNewestHasEnded(t *testing.T) {
	for name, failure := range map[string]meshsimtest.Response{
		"503": {Status: 503}, "refused": meshsimtest.Content(`{"status":"failed"}`),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPartial(t)
			login := p.login("one", "two")
			began := p.Clock.Now()
			require.NoError(t, p.connector(p.w).Connect(t.Context(), wrapped("u", login, 0, 1), began))
			p.Clock.Advance(4 * time.Minute)
			p.server.Set(meshsimtest.Content(`{"status":"succeeded","expiresInSeconds":60,"brokerAccountTokens":[{"account":{"accountId":"one"},"accessToken":"short"}]}`))
			g := p.refresh(p.w, p.live(p.w, "u")[0])
			require.Equal(t, p.Clock.Now().Add(time.Minute), g.Access.ExpiresAt.UTC())
			p.server.Set(failure)
			for p.Clock.Now().Before(began.Add(50 * time.Minute)) {
				p.Clock.Advance(min(max(g.Due.At.Sub(p.Clock.Now()), 0), began.Add(50*time.Minute).Sub(p.Clock.Now())))
				if !g.Due.At.After(p.Clock.Now()) {
					require.NoError(t, p.w.HandleDue(t.Context(), due(g)))
				}
				g = p.Get(p.w, g.ID)
				given, ends, unavailable := p.ask()
				require.Equal(t, login.Accounts[1].AccessToken.Reveal(), given["two"])
				require.Equal(t, began.Add(hour), ends["two"].UTC())
				if !p.Clock.Now().Before(*g.Access.ExpiresAt) {
					want := map[store.State]string{store.Active: events.CodeBusy, store.MustAct: events.CodeMustAct}[g.State]
					require.Equal(t, want, unavailable["one"].Code)
				}
			}
			if name == "503" {
				require.Equal(t, store.Active, g.State)
				require.NotContains(t, strings.Join(p.toldOf("u"), "\n"), events.TokenExpired)
				return
			}
			require.Equal(t, store.MustAct, g.State)
			require.Contains(t, p.toldOf("u"), "token.expired: rejected one")
			p.Clock.Advance(g.Due.At.Sub(p.Clock.Now()))
			require.Equal(t, began.Add(hour), p.Clock.Now())
			require.NoError(t, p.w.HandleDue(t.Context(), due(g)))
			require.Equal(t, store.Expired, p.Get(p.w, g.ID).State)
			told := p.toldOf("u")
			require.Equal(t, "token.expired: rejected two", told[len(told)-1])
		})
	}
}
