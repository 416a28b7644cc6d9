package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// Connector stores payloads as grants. It keeps every account in exactly one grant of its
// user, the one that was connected last, and every refresh token in exactly one grant of
// all users.
//
// It needs no transaction. It writes a new grant first and then resolves the grants of the
// user, so that of two workers that write at once at least one sees both; all workers
// order grants alike.
type Connector struct{ opts ConnectorOptions }

// ConnectorOptions are the parts of a Connector.
type ConnectorOptions struct {
	Store        *store.Store
	Envelope     *envelope.Envelope
	Fingerprints *store.Fingerprints
	Settler      refresher.Settler
	Dispatcher   *refresher.Dispatcher
	// RemoveAtMesh: a disconnect also removes connections at Mesh.
	RemoveAtMesh bool
	// EraseDeadLetters erases the dead letters that a disconnect covers; nil: there are
	// none.
	EraseDeadLetters func(ctx context.Context, scope store.Scope, at time.Time) error
	// ParkLeftovers is that of a refresher.Refresher; nil: grants have no leftovers.
	ParkLeftovers func(ctx context.Context, g *store.Grant) *store.Grant
	// Remember is how long a disconnect is remembered.
	Remember time.Duration
	// Audit and Rejections may be nil, and so may Outcomes, which counts connects by what
	// became of them.
	Audit      *audit.Log
	Rejections *Rejections
	Outcomes   *prometheus.CounterVec
	Log        *zap.Logger
}

// NewConnector returns a connector.
func NewConnector(o ConnectorOptions) (*Connector, error) {
	if err := options.Require("a connector", o, "Store", "Envelope", "Fingerprints", "Settler", "Dispatcher", "Log"); err != nil {
		return nil, err
	}
	return &Connector{o}, nil
}

// connect stores the grants of a payload that was obtained at a time, and announces them.
// What is already stored, or older than what is stored, changes nothing: then it returns
// why. After an error the message must come again.
func (c *Connector) connect(ctx context.Context, in events.Connected, at time.Time) (events.RejectedReason, error) {
	at = store.Milli(at)
	with, err := c.opts.Fingerprints.Sealer(ctx, in.UserID)
	if err != nil {
		return "", err
	}
	ctx, outcome := withOutcome(ctx)
	candidates := candidatesOf(in, at, with.Key)
	var last *userGrants
	for _, candidate := range candidates {
		if last, err = c.put(ctx, candidate, with); err != nil {
			return "", err
		}
	}
	if last != nil && len(candidates) == 1 {
		err = c.resolve(ctx, in.UserID, last)
	} else {
		err = c.Resolve(ctx, in.UserID)
	}
	return outcome.reason(len(candidates)), err
}

// Disconnect erases what is in a scope and was connected until a time.
func (c *Connector) Disconnect(ctx context.Context, scope store.Scope, at time.Time) error {
	// A connect that comes before the erasure has ended must find the revocation.
	if err := c.opts.Store.RecordRevocation(ctx, scope, at, c.opts.Settler.Now().Add(c.opts.Remember)); err != nil {
		return err
	}
	// Only a connect waits for a lease, or until grants are sorted out.
	if err := c.Resolve(ctx, scope.User); err != nil && !errors.As(err, new(*store.LeasedError)) && !errors.As(err, new(*unresolvedError)) {
		return err
	}
	if scope.Broker == "" && scope.Account == "" {
		if _, err := c.opts.Store.RetireUserKeys(ctx, scope.User, c.opts.Settler.Now()); err != nil {
			return err
		}
	}
	if c.opts.EraseDeadLetters == nil {
		return nil
	}
	return c.opts.EraseDeadLetters(ctx, scope, at)
}
