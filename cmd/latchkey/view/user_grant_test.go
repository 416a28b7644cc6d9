package view_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// notForUsers are the fields of a grant that a user is not shown: tokens, hashes of tokens,
// and what workers note for each other.
var notForUsers = []string{
	"Sealed", "Chain", "Fingerprints",
	"Rev", "Split", "HasSeparateRefreshTokens", "HasLeftovers", "Doubtful", "AccountsDue", "SendAccess", "Epoch", "Applied",
}

// TestAUserIsShownEveryFieldOfAGrant but those: a new field is one of either.
func TestAUserIsShownEveryFieldOfAGrant(t *testing.T) {
	end := at(30)
	full := &store.Grant{
		ID: "grant", UserID: "alice", BrokerType: "coinbase", BrokerName: "Coinbase", State: store.MustAct, Reason: events.ReasonMFARequired, Version: 3,
		Accounts: []store.Account{{ID: "a", Name: "Main", ExpiresAt: &end, ConnectedAt: &end}}, Labels: map[string]string{"team": "x"},
		ConnectedAt: at(0), Published: at(1).UnixNano(), Access: &store.Lifetime{Since: at(1)}, Refresh: &store.Lifetime{Since: at(2)}, OlderAccess: []store.Lifetime{{Since: at(3)}},
		Due: &store.Due{At: at(20), Action: store.Refresh}, Attempts: 2, Deferrals: 4, Unknown: &end, MFA: &store.MFA{Until: at(5), Refused: 1},
		Failing: &store.Failing{Since: at(3), Why: "transient"}, RefusedReport: &store.RefusedReport{Version: 2, At: at(5)}, Refusals: &store.Refusals{At: at(6), Times: 2},
		Warned: events.ReasonRefreshFailing, UsedIn: 2, Lease: &store.Lease{Owner: "worker", Until: at(6)},
		Outbox: &store.Outbox{Events: []store.OutboxEvent{{Data: []byte(`{"id":"event"}`)}}}, Removal: &store.Removal{Since: at(7)}, PurgeAt: &end,
		Sealed: envelope.Blob{KeyID: "data-key", Data: []byte("ciphertext")}, Chain: &store.Chain{}, Fingerprints: []string{"fingerprint"},
	}
	shown := func(g *store.Grant) string {
		encoded, err := json.Marshal(view.OfUserGrant(g))
		require.NoError(t, err)
		return string(encoded)
	}
	whole := shown(full)
	fields := reflect.TypeFor[store.Grant]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		less := *full
		reflect.ValueOf(&less).Elem().Field(i).SetZero()
		if slices.Contains(notForUsers, name) {
			require.Equal(t, whole, shown(&less), "%s is shown", name)
		} else {
			require.NotEqual(t, whole, shown(&less), "%s is not shown", name)
		}
	}
	for _, secret := range []string{"data-key", "ciphertext", "Y2lwaGVydGV4dA", "fingerprint"} {
		require.NotContains(t, whole, secret)
	}
	require.NotEmpty(t, shown(&store.Grant{ConnectedAt: time.Now()}))
}
