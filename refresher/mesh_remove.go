package refresher

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
)

// RemoveError says why Mesh did not remove a connection, as far as is known. Its text
// is made of protocol constants only.
type RemoveError struct {
	// Refused: Mesh has judged the request or its token. Trying again helps only if
	// the judgement was wrong.
	Refused bool
	// RetryAfter is how long Mesh asks to wait; 0: it did not say.
	RetryAfter time.Duration
	Detail     string
	// Err is the transport's error, if it came to that.
	Err error
}

func (e *RemoveError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("removing an account at Mesh: %s: %v", e.Detail, e.Err)
	}
	return "removing an account at Mesh: " + e.Detail
}

func (e *RemoveError) Unwrap() error { return e.Err }

// Remove has Mesh remove the connection that an access token stands for
// (DELETE /api/v1/account). Without an error it is removed, or Mesh does not know
// it (any more). Every error is a *RemoveError. What is in doubt is an error: a try
// too many finds nothing to remove.
func (m *Mesh) Remove(ctx context.Context, accessToken secret.Text, brokerType string) (err error) {
	ctx, span := m.startSpan(ctx, http.MethodDelete, "/api/v1/account")
	defer func() { tracing.End(span, err) }()
	reply, _, err := m.call(ctx, http.MethodDelete, "/api/v1/account", struct {
		AuthToken string `json:"authToken"`
		Type      string `json:"type"`
	}{accessToken.Reveal(), brokerType}, time.Time{})
	if err != nil {
		return &RemoveError{Detail: "no answer", Err: err}
	}
	defer clear(reply.body)
	var in struct {
		Status string `json:"status"`
	}
	if json.Unmarshal(reply.body, &in) != nil {
		in.Status = ""
	}
	done := reply.status < 300 && (in.Status == "ok" || len(reply.body) == 0)
	if done || reply.status == http.StatusNotFound || reply.status < 500 && in.Status == "notFound" {
		return nil
	}
	failed := &RemoveError{Detail: fmt.Sprintf("HTTP %d", reply.status), RetryAfter: retryAfter(reply.header, m.now())}
	if knownStatuses[normal(in.Status)] != "" {
		failed.Detail += ", status " + knownStatuses[normal(in.Status)]
	}
	switch {
	case reply.status >= 500 || reply.status == http.StatusRequestTimeout || reply.status == http.StatusTooManyRequests:
	case in.Status == "badRequest" || in.Status == "permissionDenied" || in.Status == "unavailableForLegalReasons":
		failed.Refused = true
	case in.Status == "":
		failed.Refused = reply.status == http.StatusBadRequest || reply.status == http.StatusUnauthorized || reply.status == http.StatusForbidden || reply.status == http.StatusUnavailableForLegalReasons
	}
	return failed
}
