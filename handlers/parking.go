package handlers

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/semaphore"
)

// parking bounds the messages that are becoming dead letters. They have no slot, so that
// other messages do not wait for them.
type parking struct{ room, turns *semaphore.Weighted }

const (
	// parkingBytes bounds the bodies together; a larger one is parked alone.
	parkingBytes = 16 << 20
	// mostParked bounds their number.
	mostParked = 1024
	// parkedAtOnce are sealed and published at once. If more messages wait behind one than
	// there is room for, it is parked alone: those are more urgent.
	parkedAtOnce = 8
	// turnWait bounds the wait for a turn.
	turnWait = 2 * time.Second
)

// errParkingFull: there is no room now. The message comes back from NATS, since a wait for
// room would delay the messages behind it.
var errParkingFull = errors.New("too many messages are being parked")

func newParking() parking {
	return parking{semaphore.NewWeighted(parkingBytes), semaphore.NewWeighted(parkedAtOnce)}
}

// do calls park for a message with a body of a size, behind which others wait, and begun
// as soon as there is room. The error is errParkingFull without room, or a turn in time.
func (p parking) do(ctx context.Context, size int, behind uint64, begun func(), park func() error) error {
	weight := min(max(int64(size), parkingBytes/mostParked), parkingBytes)
	if !p.room.TryAcquire(weight) {
		return errParkingFull
	}
	defer p.room.Release(weight)
	begun()
	wait, cancel := context.WithTimeout(ctx, turnWait)
	defer cancel()
	turns := int64(1)
	if behind > mostParked {
		turns = parkedAtOnce
	}
	if p.turns.Acquire(wait, turns) != nil {
		return errParkingFull
	}
	defer p.turns.Release(turns)
	return park()
}
