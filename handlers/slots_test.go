package handlers

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
)

// Sources that share a bound leave it to the one that has something to do, and
// keep it together.
func TestSourcesShareOneBound(t *testing.T) {
	f := newFixture(t)
	const bound, partitions = 8, 5
	f.subjects.Partitions = partitions
	f.ensure()

	var running, peak atomic.Int32
	busy, release := make(chan struct{}, 1000), make(chan struct{})
	handle := func(context.Context, *message.Message) error {
		now := running.Add(1)
		for p := peak.Load(); now > p && !peak.CompareAndSwap(p, now); p = peak.Load() {
		}
		busy <- struct{}{}
		<-release
		running.Add(-1)
		return nil
	}
	sources, routes := map[string]Source{}, []Route{}
	for _, p := range f.subjects.RefreshPartitions() {
		sources[p.Due] = Source{Stream: p.Stream, Concurrency: bound, Shared: "due"}
		routes = append(routes, Route{Name: events.RefreshDueName, Subject: p.Due, Handle: handle})
	}
	router, err := NewRouter(RouterOptions{
		Routes: routes, Subscriber: must(NewSubscriber(SubscriberOptions{Streams: f.streams, AckWait: f.messages.AckWait, Sources: sources, Log: f.log})), Messages: f.messages, DeadLetters: f.dead,
		Grace: patience, Log: f.log, Metrics: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- router.Run(context.Background()) }()
	<-router.Running()

	publish := func(partition int) {
		for n := range 3 * bound {
			_, err := f.js.Publish(t.Context(), f.subjects.RefreshPartitions()[partition].Due, fmt.Append(nil, n))
			require.NoError(t, err)
		}
	}
	publish(3)
	for range bound { // though four others wait for a message
		enginestest.Receive(t, busy)
	}
	for n := range partitions {
		publish(n)
	}
	for range partitions - 1 { // the places in which the others wait
		enginestest.Receive(t, busy)
	}
	close(release)
	f.eventually(func() bool {
		left := 0
		for _, p := range f.subjects.RefreshPartitions() {
			left += f.left(p.Stream)
		}
		return left == 0
	}, "not all handled")
	require.EqualValues(t, bound+partitions-1, peak.Load())
	require.NoError(t, router.Close())
	require.NoError(t, <-done)
}

func TestAClaimWaitsAMomentForMore(t *testing.T) {
	s := slots{taken: make(chan struct{}, 16)}
	require.Equal(t, 16, s.claim(t.Context()), "all that are free")
	claimed := make(chan int)
	go func() { claimed <- s.claim(t.Context()) }()
	s.free(1)
	require.Equal(t, 1, <-claimed, "no more came")
	s.free(9)
	require.Equal(t, 9, s.claim(t.Context()))

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.Zero(t, s.claim(ended), "none is free")
	s.shared = true
	s.free(5)
	require.Equal(t, 1, s.claim(t.Context()), "others wait for the rest")
}
