package operator

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// refusals hears what NATS does not permit this worker. NATS says so beside the request, which
// then never gets an answer.
type refusals struct {
	mu       sync.Mutex
	watchers map[*watcher]bool
}

type watcher struct {
	about []string
	stop  context.CancelCauseFunc
}

// listen has it hear the errors of a connection, before whoever heard them until now.
func (f *refusals) listen(nc *nats.Conn) {
	f.watchers = map[*watcher]bool{}
	next := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		f.hear(err)
		if next != nil {
			next(nc, sub, err)
		}
	})
}

// refused finds in an error of NATS what is not permitted.
var refused = regexp.MustCompile(`Permissions Violation for (Publish|Subscription) to "([^"]+)"`)

func (f *refusals) hear(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	found := refused.FindStringSubmatch(err.Error())
	if found == nil {
		return
	}
	verb := map[string]string{"Publish": "publish", "Subscription": "subscribe"}[found[1]]
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		for _, about := range w.about {
			if strings.Contains(found[2], about) {
				w.stop(refuse(http.StatusForbidden, "NATS does not permit this worker to "+verb+" to "+found[2]+": its role lacks that (deploy/nats/roles/worker.conf has it)"))
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
