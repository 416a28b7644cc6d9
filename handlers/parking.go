package handlers

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/semaphore"
)

// parking bounds the messages that are on their way to the dead letters. They
// hold no slot, so that what waits for the dead letters does not hold up what has
// nothing to do with them.
type parking struct{ room, turns *semaphore.Weighted }

const (
	// parkingBytes bounds the bodies together; a larger one is parked alone.
	parkingBytes = 16 << 20
	// mostParked bounds their number.
	mostParked = 1024
	// parkedAtOnce are sealed and published at once. If more wait behind a message
	// than there is room for, it is parked alone: to look at those goes before, since
	// for one of them somebody may be waiting.
	parkedAtOnce = 8
	// turnWait bounds the wait for a turn.
	turnWait = 2 * time.Second
)

// errParkingFull: there is no room now. The message comes back from NATS, which
// keeps it meanwhile: to wait for room would hold up the messages behind.
var errParkingFull = errors.New("too many messages are being parked")

func newParking() parking {
	return parking{semaphore.NewWeighted(parkingBytes), semaphore.NewWeighted(parkedAtOnce)}
}

// do parks a message with a body of a size, behind which others wait. begun is
// called once there is room. The error is errParkingFull if there is none, or no
// turn in time.
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
