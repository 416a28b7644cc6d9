package refresher

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Probe is what Mesh answers to a refresh without a token, which nothing can be
// spent by.
type Probe struct {
	Status int
	// Date is Mesh's clock, to the second; zero if it does not tell.
	Date time.Time
}

// Probe asks Mesh to refresh nothing. Status 401 or 403 says that it refuses the
// credentials.
func (m *Mesh) Probe(ctx context.Context) (Probe, error) {
	reply, _, err := m.call(ctx, http.MethodPost, "/api/v1/token/refresh", refreshBody{}, time.Time{})
	if err != nil {
		return Probe{}, fmt.Errorf("calling Mesh: %w", err)
	}
	date, _ := http.ParseTime(reply.header.Get("Date")) // none: the clock is not known
	return Probe{Status: reply.status, Date: date}, nil
}
