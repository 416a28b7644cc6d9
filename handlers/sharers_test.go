package handlers

import (
	"context"
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

// TestEachWorkerHasItsFullNumberOfMessages: those who share a consumer don't
// take each other's places.
func TestEachWorkerHasItsFullNumberOfMessages(t *testing.T) {
	f := newFixture(t)
	f.messages.AckWait = patience // none comes twice
	f.ensure()
	const workers, concurrency = 3, 2
	begun, release := make(chan struct{}, workers*concurrency), make(chan struct{})
	for range workers {
		f.run(concurrency, func(context.Context, *message.Message) error {
			begun <- struct{}{}
			<-release
			return nil
		})
	}
	defer close(release) // also for what a failure leaves at work
	for n := range workers * concurrency {
		f.publish(fmt.Sprint(n))
	}
	for range workers * concurrency {
		enginestest.Receive(t, begun)
	}
}
