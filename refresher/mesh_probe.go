package refresher

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/latchkey/latchkey/events"
)

// Probe is what Mesh answers to a refresh without a token, which spends nothing.
type Probe struct {
	Status int
	// Date is Mesh's clock, to the second; zero if it does not tell.
	Date time.Time
}

// Probe asks Mesh to refresh nothing. With status 401 or 403 it refuses the credentials.
func (m *Mesh) Probe(ctx context.Context) (Probe, error) {
	reply, err := m.call(ctx, http.MethodPost, "/api/v1/token/refresh", refreshBody{}, time.Time{})
	if err != nil {
		return Probe{}, fmt.Errorf("calling Mesh: %w", err)
	}
	date, _ := http.ParseTime(reply.header.Get("Date")) // none: the clock is not known
	return Probe{Status: reply.status, Date: date}, nil
}

// whoseRefusal finds out what a 401 refuses: the client's credentials, as documented, or a
// user's token. The credentials are sent once more without a token: only another 401, or a
// body that says so, blames them.
func (m *Mesh) whoseRefusal(ctx context.Context, f *Failure) *Failure {
	reply, err := m.call(ctx, http.MethodGet, "/api/v1/status", nil, time.Time{})
	defer clear(reply.body)
	said := readAnswer(reply)
	fine := reply.status < 300 && (len(bytes.TrimSpace(reply.body)) == 0 || said.readable && said.errorType == "" && (said.envelope == "" || normal(said.envelope) == "ok"))
	switch {
	case err == nil && (reply.status == http.StatusUnauthorized || said.says("unauthorized")):
		f.Detail += ", and so does GET /api/v1/status"
		return f
	case err == nil && fine:
		f.Class, f.Reason, f.Detail = Dead, events.ReasonRejected, f.Detail+", the credentials are accepted"
		return f
	}
	f.Class, f.Detail = Transient, f.Detail+", whether the credentials are accepted is not known"
	return f
}
