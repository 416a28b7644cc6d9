package handlers

import (
	"context"
	"time"

	"github.com/latchkey/latchkey/events"
)

// Connect stores a connect as the handler of integration.connected does.
func (c *Connector) Connect(ctx context.Context, in events.Connected, at time.Time) error {
	_, err := c.connect(ctx, in, at)
	return err
}
