package tokens

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// spellings name one broker.
var spellings = []string{"weBull", "webull", "WEBULL"}

// Earlier releases stored what differed in case as two grants: the older one is
// dead, and is not given out.
func TestRequestsMatchHoweverTheBrokerIsWritten(t *testing.T) {
	for _, broker := range spellings {
		require.Equal(t, forBroker("webull"), forBroker(broker), "requests wait for one broker")
	}
	connected := time.Now()
	for _, one := range spellings {
		for _, other := range spellings {
			grant := func(id, broker string, at time.Time, accounts ...string) *store.Grant {
				g := &store.Grant{ID: id, UserID: "u", BrokerType: broker, State: store.Active, ConnectedAt: at}
				for _, a := range accounts {
					g.Accounts = append(g.Accounts, store.Account{ID: a})
				}
				return g
			}
			older := grant("older", one, connected, "a", "b")
			newer := grant("newer", other, connected.Add(time.Second), "a")
			elsewhere := grant("elsewhere", "vanguard", connected.Add(time.Minute), "a", "b")
			all := []*store.Grant{older, newer, elsewhere}
			for _, asked := range append([]string{""}, spellings...) {
				in := events.TokenRequest{UserID: "u", BrokerType: asked}
				require.Equal(t, []store.Account{{ID: "b"}}, matching(older, in, all), "%s %s %s", one, other, asked)
				require.Equal(t, []store.Account{{ID: "a"}}, matching(newer, in, all))
				require.Equal(t, asked == "", len(matching(elsewhere, in, all)) > 0)
				in.AccountID = "a"
				require.Empty(t, matching(older, in, all))
			}
		}
	}
}
