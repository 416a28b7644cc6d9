package imports_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/imports"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

var start = time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)

// publisher takes in what is published.
type publisher struct {
	mu       sync.Mutex
	got      []events.Connected
	bodies   map[string]bool
	underWay int
	most     int
	fail     func(body []byte) error
}

func (p *publisher) publish(_ context.Context, body []byte) error {
	p.mu.Lock()
	p.underWay++
	p.most = max(p.most, p.underWay)
	p.mu.Unlock()
	defer func() { p.mu.Lock(); p.underWay--; p.mu.Unlock() }()
	if p.fail != nil {
		if err := p.fail(body); err != nil {
			return err
		}
	}
	in, err := events.DecodeConnected(body)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bodies == nil {
		p.bodies = map[string]bool{}
	}
	if !p.bodies[string(body)] { // a repetition changes nothing
		p.got = append(p.got, in)
	}
	p.bodies[string(body)] = true
	return nil
}

func options(p *publisher, in string) imports.Options {
	return imports.Options{In: strings.NewReader(in), MaxBytes: 500, InFlight: 4, Publish: p.publish, Now: func() time.Time { return start }}
}

func TestRowsBecomeMessages(t *testing.T) {
	for row, want := range map[string]struct {
		at              time.Time
		access, refresh time.Duration
	}{
		`"accessToken":"t"`: {start, 0, 0},
		`"accessToken":"t","expiresAt":null,"refreshToken":null,"expiresInSeconds":null`:              {start, 0, 0},
		`"accessToken":"t","expiresAt":"2026-03-01T10:30:00Z"`:                                        {start, time.Hour, 0},
		`"accessToken":"t","expiresAt":"2026-03-01T09:00:00+01:00"`:                                   {time.Date(2026, 3, 1, 7, 59, 59, 0, time.UTC), time.Second, 0},
		`"accessToken":"t","expiresInSeconds":60.9,"obtainedAt":"2026-01-01T00:00:00Z"`:               {time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Minute, 0},
		`"refreshToken":"r","refreshTokenExpiresAt":"2026-03-02T09:30:00Z"`:                           {start, 0, 24 * time.Hour},
		`"refreshToken":"r","refreshTokenExpiresInSeconds":5,"obtainedAt":"2026-01-01T00:00:00.123Z"`: {time.Date(2026, 1, 1, 0, 0, 0, 123e6, time.UTC), 0, 5 * time.Second},
	} {
		p := &publisher{}
		state, err := imports.Run(t.Context(), options(p, `{"userId":"u","brokerType":"b","brokerName":"B","accountId":"a","accountName":"A",`+row+`}`))
		require.NoError(t, err)
		require.EqualValues(t, 1, state.Accepted, row)
		got := p.got[0]
		require.True(t, want.at.Equal(got.ConnectedAt), "%s: %s", row, got.ConnectedAt)
		require.Equal(t, want.access, got.Payload.AccessToken.ExpiresInSeconds.Duration(), row)
		require.Equal(t, want.refresh, got.Payload.AccessToken.RefreshTokenExpiresInSeconds.Duration(), row)
		require.Equal(t, events.PayloadAccount{AccountID: "a", AccountName: "A"}, got.Payload.AccessToken.AccountTokens[0].Account)
	}
	p := &publisher{}
	_, err := imports.Run(t.Context(), options(p, `{"userId":"u","brokerType":"b","refreshToken":"r"}`))
	require.NoError(t, err)
	require.Equal(t, "r", p.got[0].Payload.DelayedAuth.RefreshToken.Reveal())
}

func TestLinesAreRejected(t *testing.T) {
	const row = `{"userId":"u","brokerType":"b","accountId":"a","accessToken":"SECRET"`
	for line, reason := range map[string]string{
		`SECRET`:                            "not well-formed JSON in UTF-8",
		`["SECRET"]`:                        "not a JSON object of one of the two forms",
		row + `,"SECRET":1}`:                "a field that is not known; names are case-sensitive",
		row + `,"userId":"x"`:               "an object has the same name twice",
		row + `,"refreshToken":["SECRET"]}`: "refreshToken: not of the right type or form",
		row + `,"expiresAt":"SECRET"}`:      "expiresAt: not of the right type or form",
		row + `,"expiresAt":1767225600}`:    "expiresAt: not of the right type or form",
		row + `,"expiresInSeconds":1}`:      "expiresInSeconds: counts from obtainedAt, which is missing",
		row + `,"expiresInSeconds":1,"expiresAt":"2026-01-01T00:00:00Z"}`:                            "expiresAt and expiresInSeconds: only one of them may be given",
		row + `,"obtainedAt":"2026-01-01T00:00:00Z","refreshTokenExpiresAt":"2026-01-01T00:00:00Z"}`: "refreshTokenExpiresAt: not after obtainedAt",
		`{"userId":"u","brokerType":"b","accessToken":"SECRET"}`:                                     "payload.accessToken.accountTokens.0.account.accountId: empty",
		`{"userId":"u","payload":{"delayedAuth":{"brokerType":"b","refreshToken":"SECRET"}}}`:        "connectedAt: missing; lifetimes count from it",
		`{"specversion":"1.0","SECRET":1}`:                                                           "invalid integration.connected: the CloudEvents message has neither data nor data_base64",
		`"` + strings.Repeat("SECRET", 500) + `"`:                                                    "longer than connect.max_bytes",
	} {
		var got []imports.Reject
		p := &publisher{}
		o := options(p, "\n"+line+"\n"+row+"}\n")
		o.OnReject = func(r imports.Reject) { got = append(got, r) }
		state, err := imports.Run(t.Context(), o)
		require.NoError(t, err)
		require.Equal(t, []imports.Reject{{Line: 2, Reason: reason}}, got)
		require.EqualValues(t, 1, state.Accepted)
		require.EqualValues(t, 3, state.Lines)
		require.Len(t, p.got, 1)
	}
}

func row(user, refreshToken string) string {
	return fmt.Sprintf(`{"userId":%q,"brokerType":"b","accountId":"a","accessToken":"t","refreshToken":%q}`, user, refreshToken)
}

func TestRefreshTokenStandsInOneLineOnly(t *testing.T) {
	dir := t.TempDir()
	p := &publisher{}
	o := options(p, row("u", "r")+"\r\n"+row("u", "r")+"\n"+row("other", "r")+"\n")
	o.StateFile, o.RejectsFile = filepath.Join(dir, "state"), filepath.Join(dir, "rejects")
	state, err := imports.Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 1, 1}, []int64{state.Accepted, state.Repeated, state.Rejected})
	// Nor in one that is added later.
	o.In = strings.NewReader(row("u", "r") + "\r\n" + row("u", "r") + "\n" + row("other", "r") + "\n" + row("third", "r"))
	state, err = imports.Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 1, 2}, []int64{state.Accepted, state.Repeated, state.Rejected})
	require.Len(t, p.got, 1)
	rejects, err := os.ReadFile(o.RejectsFile)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(rejects), "the same refresh token as in line 1"))
}

func TestImportGoesOnAfterAFailure(t *testing.T) {
	dir := t.TempDir()
	var in strings.Builder
	for i := range 100 {
		fmt.Fprintln(&in, row(fmt.Sprint("user-", i), fmt.Sprint("r", i)))
	}
	away := errors.New("away")
	p := &publisher{fail: func(body []byte) error {
		switch {
		case bytes.Contains(body, []byte(`"user-40"`)):
			return away
		case bytes.Contains(body, []byte(`"user-20"`)):
			return client.ErrTooLarge
		}
		return nil
	}}
	o := options(p, in.String())
	o.StateFile, o.RejectsFile = filepath.Join(dir, "state"), filepath.Join(dir, "rejects")
	state, err := imports.Run(t.Context(), o)
	require.ErrorIs(t, err, away)
	require.ErrorContains(t, err, "line 41")
	require.EqualValues(t, 40, state.Lines)
	require.LessOrEqual(t, p.most, o.InFlight)

	p.fail = nil
	require.NoError(t, os.WriteFile(o.RejectsFile, append(read(t, o.RejectsFile), "half a li"...), 0o600)) // as a crash leaves it
	o.In = iotest.OneByteReader(strings.NewReader(in.String()))
	state, err = imports.Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, []int64{99, 1}, []int64{state.Accepted, state.Rejected})
	require.Len(t, p.got, 99)
	require.Equal(t, `{"line":21,"reason":"larger than NATS takes"}`+"\n", string(read(t, o.RejectsFile)))
}

func TestOtherInputThanBefore(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	first := row("u", "r") + "\n"
	run := func(in io.Reader) error {
		o := options(&publisher{}, "")
		o.StateFile, o.In = state, in
		_, err := imports.Run(t.Context(), o)
		return err
	}
	require.NoError(t, run(strings.NewReader(first)))
	require.ErrorIs(t, run(strings.NewReader(row("v", "r")+"\n")), imports.ErrChanged)
	require.ErrorIs(t, run(strings.NewReader("")), imports.ErrChanged)
	require.NoError(t, run(strings.NewReader(first+row("v", "s"))))
	broken := errors.New("broken")
	require.ErrorIs(t, run(iotest.ErrReader(broken)), broken)
	require.ErrorIs(t, run(io.MultiReader(strings.NewReader(first+row("v", "s")), iotest.ErrReader(broken))), broken)
	require.NoError(t, os.WriteFile(state, []byte(`{}`), 0o600))
	require.ErrorContains(t, run(strings.NewReader(first)), "not a state of an import")
}

func TestFilesThatCanNotBeWritten(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing", "file")
	o := options(&publisher{}, row("u", "r"))
	o.StateFile = missing
	_, err := imports.Run(t.Context(), o)
	require.ErrorContains(t, err, "writing the state")
	o = options(&publisher{}, row("u", "r"))
	o.RejectsFile = missing
	_, err = imports.Run(t.Context(), o)
	require.ErrorContains(t, err, "opening the file for rejects")
}

func read(t *testing.T, path string) []byte {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(row("u", "r") + "\n" + row("u", "r") + "\r\n\n"))
	f.Add([]byte(`{"userId":"u","connectedAt":"2026-01-01T00:00:00Z","payload":{"delayedAuth":{"brokerType":"b","refreshToken":"r"}}}`))
	f.Add([]byte(`{"userId":"u","brokerType":"b","accountId":"a","accessToken":"t","expiresAt":"9899-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		p := &publisher{}
		o := options(p, string(in))
		state, err := imports.Run(t.Context(), o)
		require.NoError(t, err, "what is accepted decodes")
		require.EqualValues(t, len(in), state.Offset)
		require.LessOrEqual(t, int64(len(p.got)), state.Accepted)
		require.LessOrEqual(t, state.Accepted+state.Rejected+state.Repeated, state.Lines)
	})
}
