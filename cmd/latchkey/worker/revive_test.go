package worker_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// An operator keeps what is refused from ending, lets it end, and has it tried again.
func TestVerdictsAndRevivalsOnTheCommandLine(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	h.worker("LATCHKEY_ADMIN_LISTEN=127.0.0.1:0")
	require.Contains(t, o.ok("verdicts", "hold", "CoinBase"), "verdicts at coinbase are held")
	fault, err := h.stack.Mesh.Inject(meshsim.Fault{BrokerType: "coinbase", Action: meshsim.Failed("no")})
	require.NoError(t, err)
	h.connectAged("alice", over, spec("coinbase"), "a")
	id := h.event(events.TokenStored, "alice").Data.GrantID
	require.Equal(t, events.ReasonRefreshFailing, h.event(events.TokenExpiring, "alice").Data.Reason)
	require.Empty(t, h.eventsOf(events.TokenExpired, "alice"))
	require.Regexp(t, `last error +.*dead: HTTP 200, status ok, content failed`, o.ok("grants", "show", id))
	require.Contains(t, o.fails("grants", "revive", id), "not revived: the grant has not expired: it is active")

	// The same on the operator's page.
	r := h.reader()
	shown := r.overview().Verdicts.Value
	require.Len(t, shown, 1)
	require.NotNil(t, shown[0].HeldSince)
	require.Equal(t, []any{"coinbase", store.DecidedHold, 1}, []any{shown[0].Broker, shown[0].Decided, shown[0].Refused})
	for _, body := range []string{`{}`, `{"broker":"coinbase"}`, `{"broker":"coinbase","decision":"kill"}`, `{"decision":"release"}`, `[]`, ``} {
		status, _ := r.post("/api/verdicts", body)
		require.Equal(t, http.StatusBadRequest, status, body)
	}
	status, answer := r.post("/api/verdicts", `{"broker":"CoinBase","decision":"release"}`)
	require.Equal(t, http.StatusOK, status, answer)
	require.NotContains(t, answer, "heldSince")
	h.eventually(func() bool { return r.overview().Verdicts.Value[0].HeldSince == nil }, "the page still says held")
	require.Contains(t, o.ok("verdicts", "release", "coinbase"), "verdicts at coinbase are given")
	require.Equal(t, events.ReasonRejected, h.event(events.TokenExpired, "alice").Data.Reason)
	var listed []struct {
		Broker  string
		Decided store.Decision
	}
	require.NoError(t, json.Unmarshal([]byte(o.ok("verdicts", "list", "-o", "json")), &listed))
	require.Len(t, listed, 1)
	require.Equal(t, store.DecidedRelease, listed[0].Decided)

	require.Contains(t, o.fails("grants", "revive", id), "not revived: the grant is now expired (rejected)")
	h.stack.Mesh.ClearFaults(fault...)
	require.Regexp(t, `^revived `+id+`: version 2, access token ends `, o.ok("grants", "revive", id))
	h.event(events.TokenRefreshed, "alice")
	require.Contains(t, o.fails("grants", "revive", "none"), "its tokens are gone")
	h.eventually(func() bool { return len(o.ok("verdicts", "list", "-o", "json")) < 5 }, "the success does not end the decision")
}
