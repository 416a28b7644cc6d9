package client

import "time"

// Clock replaces the clock by which keys grow old.
func Clock(now func() time.Time) Option { return func(c *Client) { c.now = now } }
