package kmssim

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/latchkey/latchkey/events/pause"
)

// A Fault is a way in which a request goes wrong before the service looks at it.
type Fault struct{ answer error }

var (
	Throttling         = Fault{clientError("ThrottlingException", "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.")}
	Internal           = Fault{&apiError{http.StatusInternalServerError, "KMSInternalException", "Simulated internal failure."}}
	KeyUnavailable     = Fault{&apiError{http.StatusInternalServerError, "KeyUnavailableException", "Simulated unavailability of the key."}}
	DependencyTimeout  = Fault{&apiError{http.StatusInternalServerError, "DependencyTimeoutException", "Simulated timeout of a dependency."}}
	ServiceUnavailable = Fault{&apiError{http.StatusServiceUnavailable, "ServiceUnavailableException", "Simulated unavailability of the service."}}
	Disconnect         = Fault{errDisconnect} // closes the connection without an answer
	AccessDenied       = Fault{clientError("AccessDeniedException", "The caller is not authorized to perform this operation on this key.")}

	// Of STS.
	IDPCommunication = Fault{clientError("IDPCommunicationError", "The identity provider can't be reached.")}
	ExpiredToken     = Fault{clientError("ExpiredTokenException", "The identity token has expired.")}
	InvalidToken     = Fault{clientError("InvalidIdentityToken", "The identity token is not valid.")}
)

// Faults make requests go wrong until Clear. Of several that hit a request the first one
// added wins; delays add up. With operations ("Decrypt") only these are hit.
type Faults struct {
	mu    sync.Mutex
	rules []*rule
	calls map[string]int
}

type rule struct {
	operations []string
	fault      Fault
	left       int // requests still to be hit; negative: no limit
	delay      time.Duration
}

func newFaults() *Faults { return &Faults{calls: map[string]int{}} }

func (f *Faults) Next(n int, fault Fault, operations ...string) {
	f.add(&rule{operations: operations, fault: fault, left: max(n, 0)})
}

func (f *Faults) Always(fault Fault, operations ...string) {
	f.add(&rule{operations: operations, fault: fault, left: -1})
}

// Delay makes every request wait for d before anything else happens to it.
func (f *Faults) Delay(d time.Duration, operations ...string) {
	f.add(&rule{operations: operations, left: -1, delay: d})
}

func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

func (f *Faults) add(r *rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, r)
}

// hit counts a request, delays it, and returns the error with which it fails, if any.
func (f *Faults) hit(ctx context.Context, operation string) error {
	delay, failure := f.take(operation)
	if delay > 0 && pause.For(ctx, delay) != nil {
		return errDisconnect
	}
	return failure
}

func (f *Faults) take(operation string) (delay time.Duration, failure error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[operation]++
	for _, r := range f.rules {
		if len(r.operations) > 0 && !slices.Contains(r.operations, operation) {
			continue
		}
		delay += r.delay
		if r.fault.answer != nil && failure == nil && r.left != 0 {
			r.left--
			failure = r.fault.answer
		}
	}
	return delay, failure
}

func (f *Faults) count(operation string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[operation]
}
