package handlers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// Router runs the message handlers on Watermill and decides what becomes of a
// message whose handler failed.
type Router struct {
	router      *message.Router
	subscriber  message.Subscriber
	messages    config.Messages
	deadLetters *DeadLetters
	parking     parking
	log         *zap.Logger
	// crowded says at most once a second that there is no room to park.
	crowded  *zap.Logger
	handled  *prometheus.CounterVec
	failures *failures
	// Tracer is set before Run.
	Tracer tracing.Tracer
	// Rejections, set before Run, tell of connects that became dead letters; nil:
	// nobody is told.
	Rejections *Rejections
}

// Handler handles one message. nil means done; an error is sorted by the
// router.
type Handler func(ctx context.Context, msg *message.Message) error

// Route binds a handler to a subject.
type Route struct {
	// Name of the message, in metrics and dead letters.
	Name    string
	Subject string
	Handle  Handler
	// Delayed: messages come hours after they were sent. Their handling is a
	// trace of its own, with a link to the one in which they were.
	Delayed bool
}

// NewRouter returns a router that runs the routes once Run is called. grace
// bounds how long Close waits for handlers.
func NewRouter(routes []Route, sub message.Subscriber, messages config.Messages, dead *DeadLetters, grace time.Duration, log *zap.Logger, reg prometheus.Registerer) (*Router, error) {
	wm, err := message.NewRouter(message.RouterConfig{CloseTimeout: grace}, quietLogger{log})
	if err != nil {
		return nil, fmt.Errorf("making the message router: %w", err)
	}
	r := &Router{
		router: wm, subscriber: sub, messages: messages, deadLetters: dead, parking: newParking(), log: log, crowded: log.WithOptions(zap.WrapCore(seldom)), failures: newFailures(),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "latchkey", Name: "messages_total", Help: "Messages by name and what became of them.",
		}, []string{"message", "outcome"}),
	}
	reg.MustRegister(r.handled)
	for _, route := range routes {
		r.handled.WithLabelValues(route.Name, outcomeParked) // from zero on, so that an alert sees the first
		wm.AddConsumerHandler(route.Subject, route.Subject, sub, r.decide(route))
	}
	return r, nil
}

// seldom has one line a second at most.
func seldom(core zapcore.Core) zapcore.Core {
	return zapcore.NewSamplerWithOptions(core, time.Second, 1, 0)
}

// Run handles messages until ctx ends or Close is called.
func (r *Router) Run(ctx context.Context) error { return r.router.Run(ctx) }

// Running is closed when all handlers receive.
func (r *Router) Running() chan struct{} { return r.router.Running() }

// Close stops receiving and waits for the handlers at work.
func (r *Router) Close() error {
	if err := r.router.Close(); err != nil {
		return err
	}
	// Watermill does not wait for a handler that begins while it closes.
	return r.subscriber.Close()
}

// Outcomes of a message.
const (
	outcomeDone   = "done"
	outcomeRetry  = "retry"
	outcomeParked = "parked"
)

// errPanic stands for a panic in a handler. The value of the panic is not kept:
// it could be anything.
var errPanic = errors.New("panic in a handler")

// decide wraps a handler: one place sorts its errors into done, again later,
// and dead letter.
func (r *Router) decide(route Route) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		d := deliveryOf(msg)
		ctx, end := r.startSpan(msg.Context(), route, d)
		err := r.guard(ctx, route, msg)
		if err == nil {
			r.failures.forget(d)
			end(outcomeDone, nil)
			r.handled.WithLabelValues(route.Name, outcomeDone).Inc()
			return nil
		}
		reason, failed, poison := r.poison(err, d)
		if poison {
			if parkErr := r.park(ctx, route.Name, msg, err, reason); parkErr == nil {
				if route.Name == events.IntegrationConnected {
					r.Rejections.parked(ctx, d, err)
				}
				r.failures.forget(d)
				end(outcomeParked, err)
				r.handled.WithLabelValues(route.Name, outcomeParked).Inc()
				return nil
			} else {
				err = errors.Join(err, errNotParked, parkErr)
			}
		}
		end(outcomeRetry, err)
		d.RetryIn = r.retryIn(err, failed, d.Behind)
		r.handled.WithLabelValues(route.Name, outcomeRetry).Inc()
		log := r.log
		if errors.Is(err, errParkingFull) {
			log = r.crowded
		}
		tracing.Log(ctx, log).Warn("a message comes back later", zap.String("message", route.Name), zap.Int("attempt", d.Attempt), zap.Duration("in", d.RetryIn), zap.Error(err))
		return errRetry
	}
}

func (r *Router) park(ctx context.Context, name string, msg *message.Message, err error, reason string) error {
	d := deliveryOf(msg)
	return r.parking.do(ctx, len(msg.Payload), d.Behind, d.freeSlot, func() error {
		var unsealed *unsealedError
		if errors.As(err, &unsealed) {
			return r.deadLetters.ParkWithoutBody(ctx, name, d, msg.Payload, reason)
		}
		return r.deadLetters.Park(ctx, name, d, msg.Payload, reason)
	})
}

// errNotParked stands for a dead letter that could not be stored.
var errNotParked = errors.New("the message is to become a dead letter")

// errRetry makes Watermill refuse the message; the subscriber knows the delay.
var errRetry = errors.New("message comes back later")

func (r *Router) guard(ctx context.Context, route Route, msg *message.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			tracing.Log(ctx, r.log).Error("panic in a handler", zap.String("message", route.Name), zap.String("type", fmt.Sprintf("%T", v)), zap.ByteString("stack", debug.Stack()))
			err = errPanic
		}
	}()
	return route.Handle(ctx, msg)
}

// poison tells whether trying a message again is useless. failed is how often it
// failed by its own fault, or, in an outage, how often it was tried at all.
func (r *Router) poison(err error, d *delivery) (reason string, failed int, poison bool) {
	var invalid *events.InvalidError
	var unsealed *unsealedError
	switch {
	case errors.As(err, &unsealed):
		return unsealed.Error(), d.Attempt, true
	case errors.As(err, &invalid):
		return invalid.Error(), d.Attempt, true
	case errors.Is(err, refresher.ErrRecoveryEntry):
		return err.Error(), d.Attempt, true
	case refresher.Outage(err): // a message waits for its end, however long
		return "", d.Attempt, false
	}
	failed = r.failures.add(d)
	return fmt.Sprintf("gave up after %d failures, %d attempts in all: %v", failed, d.Attempt, err), failed, failed >= r.messages.MaxDeliver
}

// What comes back goes before what is new. So what could not be parked comes back
// when those behind it have been looked at, as far as that can be told.
const (
	lookedAtIn = time.Millisecond
	maxBehind  = 1_000_000
)

// retryIn grows with the failures; a lease tells by itself when it ends.
func (r *Router) retryIn(err error, failed int, behind uint64) time.Duration {
	var leased *store.LeasedError
	if errors.As(err, &leased) {
		return min(max(time.Until(leased.Until), r.messages.Backoff.Min), r.messages.Backoff.Max)
	}
	d := r.messages.Backoff.Max
	if errors.Is(err, errNotParked) { // nobody waits for a dead letter, but perhaps for what is behind it
		d += time.Duration(min(behind, maxBehind)) * lookedAtIn
	} else if shift := failed - 1; shift < 32 {
		d = min(r.messages.Backoff.Min<<max(shift, 0), r.messages.Backoff.Max)
	}
	return d/2 + time.Duration(rand.Float64()*float64(d)/2)
}

// quietLogger passes on what Watermill says at warning level and above; it
// reports every message at info. Of errors only the fact is kept: handlers log
// their own.
type quietLogger struct{ log *zap.Logger }

func (q quietLogger) Error(msg string, err error, _ watermill.LogFields) {
	if !errors.Is(err, errRetry) {
		q.log.Error("router: " + msg)
	}
}
func (q quietLogger) Info(string, watermill.LogFields)                 {}
func (q quietLogger) Debug(string, watermill.LogFields)                {}
func (q quietLogger) Trace(string, watermill.LogFields)                {}
func (q quietLogger) With(watermill.LogFields) watermill.LoggerAdapter { return q }
