package worker_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

func TestScheduleAndRefreshOnTheCommandLine(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"endless": {}})
	o := &onCall{harness: h}
	w := h.worker("LATCHKEY_REFRESH_HORIZON=6h")
	type due struct{ Grant, User, Action, Stream string }
	show := func(args ...string) (out []due) {
		require.NoError(t, json.Unmarshal([]byte(o.ok(append([]string{"schedule", "show", "-o", "json"}, args...)...)), &out))
		return out
	}
	h.connectAged("sooner", 10*time.Minute, spec("coinbase"), "s")
	h.connectAged("later", fresh, spec("kraken"), "l", meshsim.HTTPStatus(503), meshsim.Killed("no"))
	h.connectAged("mfa", over, spec("gemini"), "m", meshsim.MFARequired())
	sooner := h.event(events.TokenStored, "sooner").Data.GrantID
	later := h.event(events.TokenStored, "later").Data.GrantID
	stuck := h.event(events.TokenExpired, "mfa").Data.GrantID
	inNATS := func(user string) string {
		found := show("--user", user)
		require.Len(t, found, 1)
		return found[0].Stream
	}
	h.eventually(func() bool { return inNATS("sooner") == "yes" && inNATS("later") == "yes" }, "the schedules are not there")
	all := show("--within", "2h")
	require.Len(t, all, 2)
	require.Equal(t, due{sooner, "sooner", "refresh", "yes"}, all[0])
	require.Equal(t, later, all[1].Grant)
	require.Len(t, show("--within", "2h", "--limit", "1"), 1)
	require.Empty(t, show("--within", "1m"))
	require.Empty(t, show("--user", "nobody"))
	require.Regexp(t, `refresh +yes +`+sooner+` +coinbase +active +1\n`, o.ok("schedule", "show", "--user", "sooner"))

	require.Regexp(t, `^refreshed `+sooner+`: version 2, access token ends `, o.ok("grants", "refresh", sooner))
	require.Len(t, h.requests("s"), 1)
	require.Contains(t, o.fails("grants", "refresh", later), "not refreshed: the refresh failed (1 in a row)")
	require.Equal(t, events.ReasonOutcomeLost, h.event(events.TokenExpiring, "later").Data.Reason)
	require.Contains(t, o.fails("grants", "refresh", stuck), "not refreshed: the grant has expired")
	require.Contains(t, o.fails("grants", "refresh", "none"), "no grant none")

	h.connectAged("endless", fresh, spec("endless"), "e")
	endless := h.event(events.TokenStored, "endless").Data.GrantID
	require.Empty(t, show("--user", "endless"), "nothing is due by itself")
	require.Regexp(t, `^refreshed `+endless+`: version 2`, o.ok("grants", "refresh", endless))
	require.Len(t, h.requests("e"), 1)
	require.Empty(t, show("--user", "endless"))

	// Without workers nothing comes of it, and what is missing shows.
	h.eventually(func() bool { return inNATS("sooner") == "yes" }, "the new schedule is not there")
	w.stop()
	stream, err := h.js.Stream(h.ctx, h.subjects.RefreshStream())
	require.NoError(t, err)
	require.NoError(t, stream.Purge(h.ctx, jetstream.WithPurgeSubject(h.subjects.RefreshSchedule(sooner))))
	require.Equal(t, "no", inNATS("sooner"))
	require.Contains(t, o.fails("grants", "refresh", sooner, "--timeout", "300ms"), "nothing has come of it yet")
	_, err = h.js.Publish(h.ctx, h.subjects.RefreshSchedule(later), []byte("nonsense"))
	require.NoError(t, err)

	// It happens when one runs again.
	h.worker()
	h.nth(events.TokenRefreshed, "sooner", 2)
	require.Empty(t, h.stack.Mesh.Ledger().DoubleSpends())
}
