package refresher

import (
	"errors"

	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// Outage reports whether an error passes once an engine is back, or a lease has ended.
func Outage(err error) bool {
	var leased *store.LeasedError
	return errors.As(err, &leased) || errors.Is(err, envelope.ErrKMS) || store.Unavailable(err) || streams.Unavailable(err)
}
