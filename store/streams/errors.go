package streams

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// accountResources is JetStream's error code for an account that has used up its limits,
// which has the status of a bad request.
const accountResources jetstream.ErrorCode = 10002

// Unavailable reports whether the same call to NATS may succeed later.
func Unavailable(err error) bool {
	for _, known := range []error{
		context.DeadlineExceeded, context.Canceled,
		nats.ErrTimeout, nats.ErrConnectionClosed, nats.ErrDisconnected, nats.ErrReconnectBufExceeded,
		nats.ErrConnectionReconnecting, nats.ErrConnectionDraining, nats.ErrNoResponders,
		jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound,
		jetstream.ErrAsyncPublishTimeout, jetstream.ErrTooManyStalledMsgs, jetstream.ErrJetStreamPublisherClosed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.Code >= 500 || api.ErrorCode == accountResources)
}
