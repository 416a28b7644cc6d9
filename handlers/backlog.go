package handlers

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/store/parts"
)

// Count returns how many dead letters there are.
func (p *DeadLetters) Count(ctx context.Context) (uint64, error) {
	stream, err := p.stream(ctx)
	if err != nil {
		return 0, err
	}
	return parts.Whole(ctx, stream, p.Subjects.DeadLetterParts())
}

// ErrNoLetter: a dead letter is not, or no longer, there.
var ErrNoLetter = errors.New("no such dead letter")

// At returns the dead letter of this id at a place in the stream, or
// ErrNoLetter.
func (p *DeadLetters) At(ctx context.Context, sequence uint64, id string) (Parked, error) {
	stream, err := p.stream(ctx)
	if err != nil {
		return Parked{}, err
	}
	msg, err := stream.GetMsg(ctx, max(sequence, 1))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Parked{}, ErrNoLetter
	}
	if err != nil {
		return Parked{}, fmt.Errorf("reading a dead letter: %w", err)
	}
	if found := p.parked(msg); found.ID == id && !p.isPart(msg) {
		return found, nil
	}
	return Parked{}, ErrNoLetter
}
