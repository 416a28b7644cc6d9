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
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// Router runs the message handlers on Watermill, and retries or parks a message whose
// handler fails.
type Router struct {
	opts           RouterOptions
	router         *message.Router
	parking        parking
	parkingFullLog *zap.Logger // logs at most once a second that there is no room to park
	handled        *prometheus.CounterVec
	failures       *failures
}

// RouterOptions are the parts of a Router. Tracer and Rejections may be zero.
type RouterOptions struct {
	Routes      []Route
	Subscriber  message.Subscriber
	Messages    config.Messages
	DeadLetters *DeadLetters
	// Rejections announce connects that became dead letters.
	Rejections *Rejections
	// Grace bounds how long Close waits for handlers.
	Grace   time.Duration
	Tracer  tracing.Tracer
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// Handler handles one message. The router decides what an error means.
type Handler func(ctx context.Context, msg *message.Message) error

// Route binds a handler to a subject.
type Route struct {
	// Name of the message, in metrics and dead letters.
	Name    string
	Subject string
	Handle  Handler
	// Delayed: messages arrive hours after they were sent. Handling one is a trace of
	// its own, with a link to the sender's.
	Delayed bool
}

// NewRouter returns a router that handles messages once Run is called.
func NewRouter(o RouterOptions) (*Router, error) {
	if err := options.Require("the message router", o, "Routes", "Subscriber", "Messages", "DeadLetters", "Grace", "Log", "Metrics"); err != nil {
		return nil, err
	}
	wm, err := message.NewRouter(message.RouterConfig{CloseTimeout: o.Grace}, quietLogger{o.Log})
	if err != nil {
		return nil, fmt.Errorf("making the message router: %w", err)
	}
	seldom := func(core zapcore.Core) zapcore.Core { return zapcore.NewSamplerWithOptions(core, time.Second, 1, 0) }
	r := &Router{
		opts: o, router: wm, parking: newParking(), failures: newFailures(), parkingFullLog: o.Log.WithOptions(zap.WrapCore(seldom)),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "latchkey", Name: "messages_total", Help: "Messages by name and what became of them.",
		}, []string{"message", "outcome"}),
	}
	o.Metrics.MustRegister(r.handled)
	for _, route := range o.Routes {
		r.handled.WithLabelValues(route.Name, outcomeParked) // starts at zero, so that an alert sees the first
		wm.AddConsumerHandler(route.Subject, route.Subject, o.Subscriber, r.decide(route))
	}
	return r, nil
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
	// Watermill does not wait for a handler that starts while it closes.
	return r.opts.Subscriber.Close()
}

// Outcomes of a message.
const (
	outcomeDone   = "done"
	outcomeRetry  = "retry"
	outcomeParked = "parked"
)

// errPanic stands for a panic in a handler. It omits the value of the panic, which could
// be anything.
var errPanic = errors.New("panic in a handler")

// decide wraps a handler. It alone sorts errors into retries and dead letters.
func (r *Router) decide(route Route) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		d := deliveryOf(msg)
		ctx, end := r.startSpan(msg.Context(), route, d)
		err := r.guard(ctx, route, msg)
		if err == nil {
			r.failures.forget(d)
			end(outcomeDone, nil)
			return nil
		}
		reason, failed, poison := r.poison(err, d)
		if poison {
			parkErr := r.park(ctx, route.Name, d, msg.Payload, err, reason)
			if parkErr == nil {
				if route.Name == events.IntegrationConnected {
					r.opts.Rejections.parked(ctx, d, err)
				}
				r.failures.forget(d)
				end(outcomeParked, err)
				return nil
			}
			err = errors.Join(err, errNotParked, parkErr)
		}
		end(outcomeRetry, err)
		d.RetryIn = r.retryIn(err, failed, d.Behind)
		log := r.opts.Log
		if errors.Is(err, errParkingFull) {
			log = r.parkingFullLog
		}
		tracing.Log(ctx, log).Warn("a message comes back later", zap.String("message", route.Name), zap.Int("attempt", d.Attempt), zap.Duration("in", d.RetryIn), zap.Error(err))
		return errRetry
	}
}

// startSpan starts the span of one delivery of a message. end takes its outcome, and counts
// it.
func (r *Router) startSpan(ctx context.Context, route Route, d *delivery) (_ context.Context, end func(outcome string, err error)) {
	opts := []trace.SpanStartOption{
		trace.WithAttributes(tracing.Messaging("process", route.Subject)...),
		trace.WithAttributes(tracing.Attempt(d.Attempt)),
	}
	if route.Delayed {
		opts = append(opts, d.Trace.Links())
	} else {
		ctx = d.Trace.Continue(ctx)
	}
	ctx, span := r.opts.Tracer.Start(ctx, "process "+route.Name, trace.SpanKindConsumer, opts...)
	return ctx, func(outcome string, err error) {
		r.handled.WithLabelValues(route.Name, outcome).Inc()
		span.SetAttributes(tracing.Outcome(outcome))
		tracing.End(span, err)
	}
}

func (r *Router) park(ctx context.Context, name string, d *delivery, body []byte, err error, reason string) error {
	return r.parking.do(ctx, len(body), d.Behind, d.freeSlot, func() error {
		if errors.As(err, new(*unsealedError)) {
			return r.opts.DeadLetters.ParkWithoutBody(ctx, name, d, body, reason)
		}
		return r.opts.DeadLetters.Park(ctx, name, d, body, reason)
	})
}

// errNotParked: a dead letter could not be stored.
var errNotParked = errors.New("the message is to become a dead letter")

// errRetry makes Watermill negatively acknowledge the message. The delay stands in its
// delivery.
var errRetry = errors.New("message comes back later")

func (r *Router) guard(ctx context.Context, route Route, msg *message.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			tracing.Log(ctx, r.opts.Log).Error("panic in a handler", zap.String("message", route.Name), zap.String("type", fmt.Sprintf("%T", v)), zap.ByteString("stack", debug.Stack()))
			err = errPanic
		}
	}()
	return route.Handle(ctx, msg)
}

// poison reports whether retrying a message is useless. failed is how often it failed by
// its own fault, or, in an outage, how often it was tried at all.
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
	return fmt.Sprintf("gave up after %d failures, %d attempts in all: %v", failed, d.Attempt, err), failed, failed >= r.opts.Messages.MaxDeliver
}

// NATS delivers retries before new messages. So what could not be parked comes back once
// those behind it are likely to have been handled.
const (
	handlingTime = time.Millisecond
	maxBehind    = 1_000_000
)

// retryIn grows with the failures. A lease says itself when it ends.
func (r *Router) retryIn(err error, failed int, behind uint64) time.Duration {
	if leased, ok := errors.AsType[*store.LeasedError](err); ok {
		return min(max(time.Until(leased.Until), r.opts.Messages.Backoff.Min), r.opts.Messages.Backoff.Max)
	}
	d := r.opts.Messages.Backoff.Max
	if errors.Is(err, errNotParked) { // what is behind it may be urgent, a dead letter is not
		d += time.Duration(min(behind, maxBehind)) * handlingTime
	} else if shift := failed - 1; shift < 32 {
		d = min(r.opts.Messages.Backoff.Min<<max(shift, 0), r.opts.Messages.Backoff.Max)
	}
	return d/2 + time.Duration(rand.Float64()*float64(d)/2)
}

// quietLogger drops Watermill's log below errors, which has a line for each message, and
// of errors logs only the fact: handlers log their own.
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
