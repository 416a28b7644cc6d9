package operator

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/handlers"
)

// What is not looked at in time is on the next page, even if nothing was found so far.
func TestWhereTheNextPageOfDeadLettersBegins(t *testing.T) {
	over, cancel := context.WithDeadline(t.Context(), time.Time{})
	defer cancel()
	refused, refuseIt := context.WithCancelCause(t.Context())
	refuseIt(refuse(http.StatusForbidden, "not permitted"))
	broken := &handlers.BrokenOffError{Next: 7}
	require.EqualValues(t, 7, placeAfter(over, broken, 1))
	require.Zero(t, placeAfter(over, broken, 7), "NATS does not answer")
	require.Zero(t, placeAfter(over, errors.New("no stream"), 1))
	require.Zero(t, placeAfter(refused, broken, 1))
	require.Zero(t, placeAfter(t.Context(), broken, 1))
}
