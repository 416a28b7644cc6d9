package operator

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// refusals receives what NATS does not permit this worker. NATS reports that on the connection,
// and the request never gets an answer.
type refusals struct {
	refused  func(error) (subject, why string)
	mu       sync.Mutex
	watchers map[*watcher]bool
}

type watcher struct {
	about []string
	stop  context.CancelCauseFunc
}

// listen receives the errors of a connection, and passes them on to its former handler.
func (f *refusals) listen(nc *nats.Conn, refused func(error) (subject, why string)) {
	f.refused, f.watchers = refused, map[*watcher]bool{}
	next := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		f.hear(err)
		if next != nil {
			next(nc, sub, err)
		}
	})
}

func (f *refusals) hear(err error) {
	subject, why := f.refused(err)
	if subject == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		for _, about := range w.about {
			if strings.Contains(subject, about) {
				w.stop(refuse(http.StatusForbidden, why))
			}
		}
	}
}

// watch returns a context that ends as soon as NATS refuses something on a subject that contains one of
// the given texts. stop has to be called.
func (f *refusals) watch(ctx context.Context, about ...string) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watcher{about, cancel}
	f.mu.Lock()
	f.watchers[w] = true
	f.mu.Unlock()
	return ctx, func() {
		f.mu.Lock()
		delete(f.watchers, w)
		f.mu.Unlock()
		cancel(nil)
	}
}

// whyNot returns the refusal that ended a watched context, or the error.
func whyNot(ctx context.Context, err error) error {
	var refused *refusal
	if errors.As(context.Cause(ctx), &refused) {
		return refused
	}
	return err
}
