package refresher

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
)

// RemoveError says why Mesh did not remove a connection, in protocol constants.
type RemoveError struct {
	Refused    bool          // Mesh refuses the request or its token, not our credentials
	RetryAfter time.Duration // how long Mesh asks to wait; 0: it did not say
	Detail     string
	Err        error // the transport's error
}

func (e *RemoveError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("removing an account at Mesh: %s: %v", e.Detail, e.Err)
	}
	return "removing an account at Mesh: " + e.Detail
}

func (e *RemoveError) Unwrap() error { return e.Err }

// Remove has Mesh remove the connection of an access token (DELETE /api/v1/account).
// Without an error it is removed, or Mesh does not know it. Every error is a
// *RemoveError. In doubt it returns one: a try too many finds nothing to remove.
func (m *Mesh) Remove(ctx context.Context, accessToken secret.Text, brokerType string) (err error) {
	ctx, span := m.startSpan(ctx, http.MethodDelete, "/api/v1/account")
	defer func() { tracing.End(span, err) }()
	reply, err := m.call(ctx, http.MethodDelete, "/api/v1/account", struct {
		AuthToken string `json:"authToken"`
		Type      string `json:"type"`
	}{accessToken.Reveal(), brokerType}, time.Time{})
	if err != nil {
		return &RemoveError{Detail: "no answer", Err: err}
	}
	defer clear(reply.body)
	text, fresh := unpack(reply.body, reply.header.Get("Content-Encoding"))
	if fresh {
		defer clear(text)
	}
	in := readAnswer(reply).statuses
	if in.removed(text) {
		return nil
	}
	f := in.failure()
	refused := f.Class == Unlawful || f.Refusal() && in.verdict() == "badrequest"
	if f.Class == Denied {
		f = m.whoseRefusal(ctx, f)
		refused = f.Class == Dead
	}
	return &RemoveError{Refused: refused, RetryAfter: retryAfter(reply.header, m.options.Now()), Detail: f.Detail}
}

// removed reports whether an answer to a removal says that there is nothing left to
// remove. The status is optional: an envelope without one that names no error means
// what the HTTP status does.
func (a statuses) removed(text []byte) bool {
	switch {
	case a.http == http.StatusNotFound || a.http == http.StatusGone || a.http < 500 && a.says("notfound"):
		return true
	case a.http >= 300 || a.content != "" && !slices.Contains([]string{"ok", "succeeded"}, normal(a.content)):
		return false
	case len(bytes.TrimSpace(text)) == 0:
		return true
	case a.envelope == "" && a.errorType == "":
		return bareEnvelope(text)
	}
	return normal(a.envelope) == "ok"
}

// bareEnvelope reports whether a text is an object with no other members than those
// that Mesh's envelope has. What a gateway writes has others.
func bareEnvelope(text []byte) bool {
	var in *struct {
		Status, Message, DisplayMessage, ErrorHash, ErrorType *string
		Content, ErrorData                                    json.RawMessage
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(&in) == nil && in != nil
}
