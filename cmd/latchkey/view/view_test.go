package view_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

func at(minute int) time.Time { return time.Date(2026, 3, 1, 12, minute, 0, 0, time.UTC) }

func TestGrantShowsEverythingButTokens(t *testing.T) {
	end, unknown := at(30), at(9)
	g := &store.Grant{
		ID: "grant", UserID: "alice", BrokerType: "coinbase", State: store.MustAct, Reason: events.ReasonMFARequired, Version: 3, Rev: 17,
		Accounts:    []store.Account{{ID: "a", Name: "Main", ExpiresAt: &end}, {ID: "b", Name: "Savings"}},
		Labels:      map[string]string{"team": "x"},
		Sealed:      envelope.Blob{KeyID: "data-key", Data: []byte("ciphertext")},
		ConnectedAt: at(0), Access: &store.Lifetime{Since: at(1), ExpiresAt: &end, Assumed: true}, Refresh: &store.Lifetime{Since: at(2)},
		Due: &store.Due{At: at(20), Action: store.Refresh, Stream: "identity"}, Attempts: 2, Unknown: &unknown,
		Failing:       &store.Failing{Since: at(3), At: at(4), Why: "transient", Detail: "HTTP 503", Type: "outage", Hash: "0a1b"},
		RefusedReport: &store.RefusedReport{Version: 2, At: at(5)},
		Lease:         &store.Lease{Owner: "worker/1", Until: at(6)},
		Removal:       &store.Removal{Since: at(7), Due: at(8), Attempts: 4},
	}
	since := at(3)
	shown := view.OfGrant(g)
	require.Equal(t, view.Grant{
		ID: "grant", User: "alice", Broker: "coinbase", State: store.MustAct, Reason: events.ReasonMFARequired, Version: 3,
		Accounts:    []view.Account{{ID: "a", Name: "Main", ExpiresAt: &end}, {ID: "b", Name: "Savings"}},
		Labels:      map[string]string{"team": "x"},
		ConnectedAt: at(0), Access: &view.Lifetime{Since: at(1), ExpiresAt: &end, Assumed: true}, Refresh: &view.Lifetime{Since: at(2)},
		Due: &view.Due{At: at(20), Action: store.Refresh}, Tries: 2, UnknownSince: &unknown,
		Failing:   &events.RefreshFailing{Since: &since, Reason: string(events.ReasonMFARequired)},
		Refused:   &view.Refused{Version: 2, At: at(5)},
		Lease:     &view.Lease{Owner: "worker/1", Until: at(6)},
		LastError: &view.LastError{At: at(4), Class: "transient", Detail: "HTTP 503", Type: "outage", Hash: "0a1b"},
		Removal:   &view.Removal{Since: at(7), Due: at(8), Tries: 4},
	}, shown)
	encoded, err := json.Marshal(shown)
	require.NoError(t, err)
	require.NotContains(t, string(encoded), "data-key")
	require.NotContains(t, string(encoded), "Y2lwaGVydGV4dA", "the sealed token set is not shown")
}

// What a grant does not have is left out, but for the list of accounts.
func TestGrantWithoutOptionalParts(t *testing.T) {
	encoded, err := json.Marshal(view.OfGrant(&store.Grant{ID: "grant", State: store.Active, ConnectedAt: at(0)}))
	require.NoError(t, err)
	require.JSONEq(t, `{"id":"grant","user":"","broker":"","accounts":[],"state":"active","version":0,"connectedAt":"2026-03-01T12:00:00Z","tries":0}`, string(encoded))
}

func TestVerdicts(t *testing.T) {
	require.Equal(t, view.Verdicts{Broker: "coinbase"}, view.OfVerdicts(&store.Verdicts{Broker: "coinbase"}))
	since := at(1)
	first, last := at(2), at(3)
	require.Equal(t, view.Verdicts{Broker: "coinbase", HeldSince: &since, Decided: store.DecidedHold, Refused: 2, FirstAt: &first, LastAt: &last},
		view.OfVerdicts(&store.Verdicts{Broker: "coinbase", HeldSince: &since, Decided: store.DecidedHold, Refused: []store.RefusedGrant{{At: at(2)}, {At: at(3)}}}))
}
