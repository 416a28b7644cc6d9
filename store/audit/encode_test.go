package audit

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// records generates records with and without each of their parts.
var records = rapid.Custom(func(t *rapid.T) Record {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringMatching(`[<>&"\\\x00-\x7f\x{2028}]{1,8}`), rapid.Just("\xff no UTF-8"))
	grant := rapid.Custom(func(t *rapid.T) Grant {
		return Grant{
			ID: text.Draw(t, "id"), Broker: text.Draw(t, "broker"), Version: rapid.Int64().Draw(t, "version"),
			Accounts: rapid.SliceOfN(text, 0, 3).Draw(t, "accounts"), Code: text.Draw(t, "code"),
		}
	})
	r := Record{
		At:     time.Unix(rapid.Int64Range(-1e10, 3e11).Draw(t, "second"), rapid.Int64Range(0, 1e9-1).Draw(t, "nanosecond")).UTC(),
		Action: Action(text.Draw(t, "action")), Outcome: text.Draw(t, "outcome"), User: text.Draw(t, "user"),
		Grants: rapid.SliceOfN(grant, 0, 3).Draw(t, "grants"), DeadLetter: text.Draw(t, "dead letter"),
		Count: rapid.IntRange(0, 2).Draw(t, "count"), Truncated: rapid.Bool().Draw(t, "truncated"),
	}
	if rapid.Bool().Draw(t, "caller") {
		r.Caller = &Caller{Inbox: text.Draw(t, "inbox"), Account: text.Draw(t, "account"), User: text.Draw(t, "name"), Name: text.Draw(t, "client")}
	}
	return r
})

func TestRecordsAreEncodedAsEncodingJSONDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := records.Draw(t, "record")
		want, err := json.Marshal(r)
		got, mine := r.encode(1 << 20)
		require.Equal(t, err == nil, mine == nil, "%v, %v", err, mine)
		if err == nil {
			require.JSONEq(t, string(want), string(got))
			require.Less(t, len(got), len(want)+1, "no name stands twice")
		}
	})
}
