package streams

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// SecureDelete deletes the messages of a stream that match a subject and that pick
// selects (nil: all), and makes the server overwrite their bytes on disk. It returns how
// many it deleted. After a failure it continues with the next message, and returns the
// first few errors at the end.
func SecureDelete(ctx context.Context, js jetstream.JetStream, name, subject string, pick func(*jetstream.RawStreamMsg) (bool, error)) (int, error) {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("erasing from %s: %w", name, err)
	}
	deleted := 0
	var failed []error
	for msg, err := range Messages(ctx, stream, subject, 1) {
		if err != nil {
			return deleted, errors.Join(fmt.Errorf("erasing from %s: %w", name, err), FirstErrors(failed))
		}
		wanted := true
		if pick != nil {
			wanted, err = pick(msg)
		}
		if wanted && err == nil {
			if err = stream.SecureDeleteMsg(ctx, msg.Sequence); err == nil {
				deleted++
			} else if _, getErr := stream.GetMsg(ctx, msg.Sequence); errors.Is(getErr, jetstream.ErrMsgNotFound) {
				err = nil // another was quicker
			} else {
				err = fmt.Errorf("erasing from %s: %w", name, err)
			}
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return deleted, FirstErrors(failed)
}

const maxErrors = 5

// FirstErrors joins the first few errors, and says how many more there are.
func FirstErrors(failed []error) error {
	if more := len(failed) - maxErrors; more > 0 {
		failed = append(failed[:maxErrors:maxErrors], fmt.Errorf("and %d more", more))
	}
	return errors.Join(failed...)
}
