package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
)

// Workers of two releases share the recovery stream during an upgrade.
func TestTheFormatOfRecoveryEntriesStays(t *testing.T) {
	const stored = `{"accounts":[{"ID":"a1","Name":"Taxable <1>","Access":"at-1","Refresh":"rt-1","Token":"id-1"},{"ID":"","Name":"","Access":"at-2","Refresh":"","Token":""}],
		"accessToken":"at","refreshToken":"rt","expiresIn":3600000000000,"refreshExpiresIn":7200000000000,
		"presented":"rt-0","connectedAt":"2026-03-01T12:00:00Z","renewed":true,"sent":"2026-03-01T13:00:00.5Z",
		"partial":true,"loose":[{"Token":"x","Refresh":true,"Meant":false}],"rest":"the body","doubtful":true,"beside":true}`
	a, encoded, err := refresher.RecodePending([]byte(stored))
	require.NoError(t, err)
	require.JSONEq(t, stored, string(encoded))
	require.Equal(t, refresher.Answer{
		Accounts: []refresher.AnsweredAccount{
			{ID: "a1", Name: "Taxable <1>", AccessToken: secret.New("at-1"), RefreshToken: secret.New("rt-1"), TokenID: secret.New("id-1")},
			{AccessToken: secret.New("at-2")},
		},
		AccessToken: secret.New("at"), RefreshToken: secret.New("rt"), ExpiresIn: time.Hour, RefreshExpiresIn: 2 * time.Hour,
		Unplaced: []refresher.UnplacedToken{{Token: secret.New("x"), Refresh: true}}, Rest: secret.New("the body"), Doubtful: true, Partial: true,
	}, a)

	const least = `{"accounts":null,"accessToken":"","refreshToken":"","expiresIn":0,"refreshExpiresIn":0,"presented":"","connectedAt":"0001-01-01T00:00:00Z","renewed":false,"sent":"0001-01-01T00:00:00Z"}`
	a, encoded, err = refresher.RecodePending([]byte(least))
	require.NoError(t, err)
	require.Empty(t, a)
	// Of an answer without accounts an empty list is written, which earlier releases read as none.
	require.JSONEq(t, `{"accounts":[]`+least[len(`{"accounts":null`):], string(encoded))
}
