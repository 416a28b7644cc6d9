package audit

import (
	"context"

	"github.com/nats-io/nats.go"
)

// PublishOver is how a log over a connection publishes.
func PublishOver(nc *nats.Conn) func(context.Context, *nats.Msg) (uint64, error) {
	return (&publisher{conn: nc}).publish
}
