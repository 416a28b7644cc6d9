package streams

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// The first version of nats-server with message schedules.
const minServerMajor, minServerMinor = 2, 12

// ErrNATS: the NATS server lacks what the worker needs.
var ErrNATS = errors.New("NATS is not usable")

// CheckServer returns an error if the server lacks message schedules or JetStream.
func CheckServer(ctx context.Context, js jetstream.JetStream) error {
	if err := CheckVersion(js.Conn().ConnectedServerVersion()); err != nil {
		return err
	}
	return CheckJetStream(ctx, js)
}

// CheckVersion returns an error if a server of this version lacks message schedules.
func CheckVersion(version string) error {
	major, minor, ok := parseVersion(version)
	if !ok || major < minServerMajor || major == minServerMajor && minor < minServerMinor {
		return fmt.Errorf("%w: server version %q is too old for message schedules; at least %d.%d is needed", ErrNATS, version, minServerMajor, minServerMinor)
	}
	return nil
}

// CheckJetStream returns an error if the account can't use JetStream.
func CheckJetStream(ctx context.Context, js jetstream.JetStream) error {
	_, err := js.AccountInfo(ctx)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return fmt.Errorf("%w: JetStream is off; start nats-server with -js and enable it for the account", ErrNATS)
	}
	if err != nil {
		return fmt.Errorf("asking NATS about JetStream: %w", err)
	}
	return nil
}

func parseVersion(v string) (major, minor int, ok bool) {
	_, err := fmt.Sscanf(strings.TrimPrefix(v, "v"), "%d.%d.", &major, &minor)
	return major, minor, err == nil
}
