// Package streamstest gives tests the topology of JetStream without a database.
package streamstest

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

// New returns the topology of an installation without a database that remembers
// its streams. It panics without a configuration or a log.
func New(js jetstream.JetStream, cfg config.Config, log *zap.Logger) *streams.Topology {
	s, err := streams.New(streams.Options{JetStream: js, State: forgetful{}, Config: cfg, Log: log})
	if err != nil {
		panic(err)
	}
	return s
}

// forgetful remembers no streams.
type forgetful struct{}

func (forgetful) StreamIdentity(context.Context) (string, error) { return "", nil }
func (forgetful) RememberStream(context.Context, string) error   { return nil }
func (forgetful) SuspectStreams(context.Context) (bool, error)   { return true, nil }

func (forgetful) StreamsSeen(context.Context) (time.Time, error)             { return time.Time{}, nil }
func (forgetful) RecordStreamsSeen(context.Context, string, time.Time) error { return nil }
func (forgetful) Rename(context.Context, string) error                       { return nil }

func (forgetful) Installation(context.Context) (store.Installation, error) {
	return store.Installation{}, store.ErrNotFound
}

func (forgetful) ClaimInstallation(_ context.Context, i store.Installation) (store.Installation, error) {
	i.ID = "test"
	return i, nil
}
