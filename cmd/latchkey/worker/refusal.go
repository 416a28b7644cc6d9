package worker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/deploy/nats/roles"
)

// PermissionError says that NATS does not permit something to the user of a connection.
type PermissionError struct {
	// Publish: it is about publishing; else about subscribing.
	Publish bool
	Subject string
	// Who is the user, as the configuration names it.
	Who string
	// Roles are those in deploy/nats that may do it.
	Roles []string
}

func (e *PermissionError) Error() string {
	do := "subscribe to"
	if e.Publish {
		do = "publish to"
	}
	may := "no role in deploy/nats may"
	if len(e.Roles) > 0 {
		may = "in deploy/nats may: " + strings.Join(e.Roles, ", ")
	}
	return fmt.Sprintf("NATS does not permit %s to %s %q (%s)", e.Who, do, e.Subject, may)
}

// A request is refused by its own subject or, where responses are permitted one by one,
// by that of its answer.
var refusal = regexp.MustCompile(`(?i)permissions violation for (publish|subscription)[^"]*"([^"]+)"`)

// permissionError returns what an asynchronous error of a connection refuses, or nil.
func permissionError(cfg config.NATS, err error) *PermissionError {
	found := refusal.FindStringSubmatch(fmt.Sprint(err))
	if !errors.Is(err, nats.ErrPermissionViolation) || found == nil {
		return nil
	}
	publish := strings.EqualFold(found[1], "publish")
	return &PermissionError{Publish: publish, Subject: found[2], Who: who(cfg), Roles: roles.Permit(publish, found[2], cfg.Subjects())}
}

// who names the user of a connection, without a secret.
func who(cfg config.NATS) string {
	switch {
	case cfg.CredsFile != "":
		return "the user of nats.creds_file"
	case !cfg.NKeySeed.Empty():
		if pair, err := nkeys.FromSeed([]byte(cfg.NKeySeed.Reveal())); err == nil {
			if public, err := pair.PublicKey(); err == nil {
				return "the nkey " + public
			}
		}
		return "the user of nats.nkey_seed"
	case !cfg.Token.Empty():
		return "whoever has nats.token"
	case cfg.Username != "":
		return fmt.Sprintf("the user %q", cfg.Username)
	}
	return "a client without credentials"
}

// EndOnRefusal has a connection end a context, with a [*PermissionError] as its cause, as
// soon as NATS refuses something. NATS answers a refused request with nothing else, so
// whoever waits for it would wait in vain.
func EndOnRefusal(cfg config.NATS, end context.CancelCauseFunc) nats.Option {
	return func(o *nats.Options) error {
		before := o.AsyncErrorCB
		o.AsyncErrorCB = func(nc *nats.Conn, sub *nats.Subscription, err error) {
			if before != nil {
				before(nc, sub, err)
			}
			if refused := permissionError(cfg, err); refused != nil {
				end(refused)
			}
		}
		return nil
	}
}

// Explain returns the error of operations with NATS, or what is behind it: what NATS did
// not permit if [EndOnRefusal] ended ctx, also if err is nil; an account without JetStream;
// a connection that was lost (nc may be nil).
func Explain(ctx context.Context, nc *nats.Conn, err error) error {
	var refused *PermissionError
	if errors.As(context.Cause(ctx), &refused) {
		return &explained{refused.Error(), errors.Join(refused, err)}
	}
	switch {
	case err == nil:
		return nil
	case nc != nil && !nc.IsConnected() && lostAnswer(err):
		return &explained{fmt.Sprintf("the connection to NATS is lost, and no server of nats.url takes a new one: %v", err), err}
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return &explained{"this account of NATS has no JetStream: enable it for the account, or connect as a user of another (nats.*)", err}
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return &explained{"no JetStream answers: start nats-server with -js; in a cluster, see whether a majority of its servers is up", err}
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return &explained{fmt.Sprintf("no stream takes what is published: has a worker run, with the same nats.url and nats.prefix, and has this account JetStream?: %v", err), err}
	}
	return err
}

func lostAnswer(err error) bool {
	for _, known := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrDisconnected, nats.ErrConnectionClosed, nats.ErrConnectionReconnecting,
		nats.ErrReconnectBufExceeded, jetstream.ErrNoStreamResponse,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// explained is an error with another text.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

// connectError says why there is no connection.
func connectError(cfg config.NATS, err error) error {
	about := err.Error()
	switch {
	case errors.Is(err, nats.ErrNoServers):
		about = "no server answers at " + cfg.URL + "; does it run there?"
	case errors.Is(err, nats.ErrAuthorization):
		about = "the server does not take the credentials of " + who(cfg) + ": " + about
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAccountAuthExpired):
		about = "the credentials of " + who(cfg) + " have expired: " + about
	}
	return &explained{"connecting to NATS (nats.url): " + about, err}
}
