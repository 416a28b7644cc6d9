package streams

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Message schedules came with this version of nats-server.
const minServerMajor, minServerMinor = 2, 12

// ErrNATS: the NATS server can't do what the worker needs.
var ErrNATS = errors.New("NATS is not usable")

// CheckServer says in plain words what a server lacks.
func CheckServer(ctx context.Context, js jetstream.JetStream) error {
	if err := CheckVersion(js.Conn().ConnectedServerVersion()); err != nil {
		return err
	}
	return CheckJetStream(ctx, js)
}

// CheckVersion says whether a server of this version has message schedules.
func CheckVersion(version string) error {
	major, minor, ok := parseVersion(version)
	if !ok || major < minServerMajor || major == minServerMajor && minor < minServerMinor {
		return fmt.Errorf("%w: server version %q is too old for message schedules; at least %d.%d is needed", ErrNATS, version, minServerMajor, minServerMinor)
	}
	return nil
}

// CheckJetStream says whether the account can use JetStream.
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
	parts := strings.SplitN(strings.TrimPrefix(v, "v"), ".", 3)
	if len(parts) < 3 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return major, minor, err1 == nil && err2 == nil
}
