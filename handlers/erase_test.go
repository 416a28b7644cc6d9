package handlers

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// parkFor parks the body of a connect.
func (f *fixture) parkFor(body string) {
	f.t.Helper()
	d := &delivery{Subject: f.subjects.Connected(), Attempt: 1, FirstStoredAt: time.Now()}
	require.NoError(f.t, f.dead.Park(f.t.Context(), events.IntegrationConnected, d, []byte(body), "junk"))
}

// tags returns by what the dead letters are found.
func (f *fixture) tags() (out []string) {
	f.t.Helper()
	for letter, err := range f.dead.All(f.t.Context()) {
		require.NoError(f.t, err)
		out = append(out, letter.Tag)
	}
	return out
}

// TestAnErasureFindsAUserInEveryForm: a body need not decode, nor be wrapped in
// one way.
func TestAnErasureFindsAUserInEveryForm(t *testing.T) {
	f := newFixture(t)
	data := `{"userId":"alice","payload":{}}`
	event := `{"specversion":"1.0","id":"1","source":"s","type":"integration.connected",`
	encoded := base64.StdEncoding.EncodeToString([]byte(data))
	bodies := []string{
		data,
		`{"userId":"\u0061lice","payload":{}}`,
		`{"user\u0049d":"alice"}`,
		"\xef\xbb\xbf" + data,
		event + `"data":` + data + `}`,
		event + `"datacontenttype":"application/json","data_base64":"` + encoded + `"}`,
		event + `"data_base64":"` + base64.RawURLEncoding.EncodeToString([]byte(data)) + `"}`,
		event + `"datacontenttype":"text/plain","data":` + fmt.Sprintf("%q", data) + `}`,
		`{"userId":"alice","userId":"bob"}`,
		event + `"data":{"userId":"bob"},"data_base64":"` + encoded + `"}`,
		`{"userId":"alice","userId":7}`,
		`{"payload":broken,"userId":"alice"}`,
		`{"userId":"alice","payload":"` + string([]byte{0xff}) + `"`,
	}
	for _, body := range bodies {
		f.parkFor(body)
	}
	f.parkFor(`{"userId":"carol"}`)
	f.parkFor(`{"userId":7}`)
	require.NoError(t, f.dead.Erase(t.Context(), store.Scope{User: "dave"}, time.Now()))
	require.Len(t, f.tags(), len(bodies)+2)
	require.NoError(t, f.dead.Erase(t.Context(), store.Scope{User: "alice"}, time.Now()))
	require.Equal(t, []string{store.UserTag("carol"), events.UnknownTag}, f.tags())
}

// TestALetterThatDoesNotOpenHoldsUpNoErasure, of whatever kind it is: those after
// it go, and other users are none of its business.
func TestALetterThatDoesNotOpenHoldsUpNoErasure(t *testing.T) {
	const connect = `{"userId":%q,"payload":{"accessToken":{"brokerType":"coinbase","accountTokens":[{"account":{"accountId":"a"},"accessToken":"t"}]}}}`
	scope := store.Scope{User: "alice", Broker: "coinbase"}
	for name, spoil := range map[string]func(f *fixture, l *DeadLetter){
		"tampered":       func(_ *fixture, l *DeadLetter) { l.Sealed.Data[40] ^= 1 },
		"another's":      func(_ *fixture, l *DeadLetter) { l.ID = "another" },
		"key deleted":    func(_ *fixture, l *DeadLetter) { l.Sealed.KeyID = "deleted" },
		"part missing":   func(_ *fixture, l *DeadLetter) { l.Parts = []uint64{1 << 40} },
		"form not known": func(_ *fixture, l *DeadLetter) { l.Format = 7 },
		"not compressed": func(f *fixture, l *DeadLetter) {
			l.Format = formatCompressed
			sealer, err := f.dead.opts.Envelope.Sealer(f.t.Context(), "")
			require.NoError(f.t, err)
			l.Sealed = sealer.Seal([]byte("no gzip"), l.Binding())
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			ctx := t.Context()
			f.parkFor(fmt.Sprintf(connect, "alice"))
			letter := f.only()
			require.NoError(t, f.dead.Drop(ctx, letter))
			spoil(f, &letter.DeadLetter)
			encoded, err := json.Marshal(letter.DeadLetter)
			require.NoError(t, err)
			_, err = f.js.Publish(ctx, f.subjects.DeadLetter(store.UserTag("alice"), letter.Message), encoded)
			require.NoError(t, err)
			for range 3 {
				f.parkFor(fmt.Sprintf(connect, "alice"))
				f.parkFor(fmt.Sprintf(connect, "bob"))
			}
			require.NoError(t, f.dead.Erase(ctx, scope, time.Now()))
			bob := store.UserTag("bob")
			require.Equal(t, []string{store.UserTag("alice"), bob, bob, bob}, f.tags())
			require.NoError(t, f.dead.Erase(ctx, store.Scope{User: "bob"}, time.Now()))
			require.NoError(t, f.dead.Erase(ctx, store.Scope{User: "alice"}, time.Now()))
			require.Empty(t, f.tags())
		})
	}
}

// TestAnErasureOfAUserFindsLettersThatNameSeveral, behind such as it leaves. A
// disconnect from one broker leaves them all: what else is in them would be lost.
func TestAnErasureOfAUserFindsLettersThatNameSeveral(t *testing.T) {
	f := newFixture(t)
	names := func(users ...string) {
		body := ""
		for _, user := range users {
			body += fmt.Sprintf(`{"userId":%q}`, user)
		}
		f.parkFor(body[:len(body)-1] + "broken")
	}
	several := func() (out [][]string) {
		for letter, err := range f.dead.All(t.Context()) {
			require.NoError(t, err)
			if letter.Tag == events.SeveralTag {
				out = append(out, letter.Users)
			}
		}
		return out
	}
	tags := func(users ...string) (out []string) {
		for _, user := range users {
			out = append(out, store.UserTag(user))
		}
		return out
	}
	names("bob", "carol")
	names("alice", "bob")
	names("carol", "bob", "alice")
	names("bob", "dave")
	require.Len(t, several(), 4)
	require.NoError(t, f.dead.Erase(t.Context(), store.Scope{User: "alice", Broker: "coinbase"}, time.Now()))
	require.Len(t, several(), 4)
	require.NoError(t, f.dead.Erase(t.Context(), store.Scope{User: "alice"}, time.Now().Add(-time.Hour)))
	require.Len(t, several(), 4)
	require.NoError(t, f.dead.Erase(t.Context(), store.Scope{User: "alice"}, time.Now()))
	require.Equal(t, [][]string{tags("bob", "carol"), tags("bob", "dave")}, several())
}
