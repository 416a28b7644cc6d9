package meshsim

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Kind is what an [Action] does to a request.
type Kind string

const (
	KindNormal           Kind = "normal"
	KindStatus           Kind = "status" // a bare HTTP status: 401, 403, 429, 500, 502, 503…
	KindReset            Kind = "reset"  // TCP RST, with no answer
	KindDrop             Kind = "drop"   // the connection closes with no answer
	KindCut              Kind = "cut"    // half of the answer, then the connection closes
	KindHang             Kind = "hang"   // no answer until the client is gone or the simulator closes
	KindDelay            Kind = "delay"  // from Min to Max
	KindEnvelope         Kind = "envelope"
	KindFailed           Kind = "failed"      // content.status "failed"; with Kill the chain dies of it
	KindMFARequired      Kind = "mfaRequired" // content.status "mfaRequired" with an interim access token
	KindGarbage          Kind = "garbage"     // 200 with something that is not JSON
	KindHuge             Kind = "huge"        // 200 with well-formed JSON of Size bytes or more
	KindOmitRefreshToken Kind = "omitRefreshToken"
	KindSpeak            Kind = "speak"
)

// Action is what happens to one request instead of, or in addition to, what the
// institution would do. The functions below make them.
type Action struct {
	Kind Kind `json:"kind"`
	// After lets the institution do its work first: the refresh token is replaced, though
	// what was issued is lost or late. Without it the institution is not asked. KindCut
	// always happens after.
	After bool `json:"after,omitzero"`

	Status         int           `json:"status,omitzero"` // HTTP status of KindStatus and KindEnvelope
	RetryAfter     time.Duration `json:"retryAfter,omitzero"`
	RetryAfterDate bool          `json:"retryAfterDate,omitzero"` // RetryAfter as an HTTP date
	Envelope       string        `json:"envelope,omitzero"`       // envelope status of KindEnvelope
	ErrorType      string        `json:"errorType,omitzero"`
	Message        string        `json:"message,omitzero"`
	Kill           bool          `json:"kill,omitzero"`
	Min            time.Duration `json:"min,omitzero"`
	Max            time.Duration `json:"max,omitzero"`
	Size           int64         `json:"size,omitzero"` // bytes of KindHuge
	// Dialects are what KindSpeak speaks, separated by commas. Those of behaviour and of
	// connects do not change a single request.
	Dialects string `json:"dialects,omitzero"`
}

func Normal() Action { return Action{Kind: KindNormal} }

func HTTPStatus(code int) Action { return Action{Kind: KindStatus, Status: code} }

func Reset() Action { return Action{Kind: KindReset} }

// Drop closes the connection with no answer, after the institution did its work.
func Drop() Action { return Action{Kind: KindDrop, After: true} }

// Cut sends half of the answer, after the institution did its work.
func Cut() Action { return Action{Kind: KindCut, After: true} }

func Hang() Action { return Action{Kind: KindHang, After: true} }

// Delay waits at least low and at most high before the institution is asked.
func Delay(low, high time.Duration) Action { return Action{Kind: KindDelay, Min: low, Max: high} }

func Envelope(status string) Action {
	return Action{Kind: KindEnvelope, Envelope: status, Status: http.StatusOK}
}

// MappedEnvelope answers an envelope status under the HTTP status that goes with it.
func MappedEnvelope(status string) Action {
	return Action{Kind: KindEnvelope, Envelope: status, Status: failures[status]}
}

// Failed answers content.status "failed" and leaves the chain alive.
func Failed(message string) Action { return Action{Kind: KindFailed, Message: message} }

// Killed answers content.status "failed" and the chain is dead from then on.
func Killed(message string) Action {
	return Action{Kind: KindFailed, Message: message, Kill: true}
}

func MFARequired() Action { return Action{Kind: KindMFARequired} }

func Garbage() Action { return Action{Kind: KindGarbage} }

func Huge(size int64) Action { return Action{Kind: KindHuge, Size: size} }

// OmitRefreshToken answers without a refresh token, and the old one stays valid. It does
// nothing to a replaced refresh token.
func OmitRefreshToken() Action { return Action{Kind: KindOmitRefreshToken, After: true} }

func Speak(dialects ...string) Action {
	return Action{Kind: KindSpeak, Dialects: strings.Join(dialects, ",")}
}

func (a Action) dialects() []string {
	if a.Dialects == "" {
		return nil
	}
	return strings.Split(a.Dialects, ",")
}

func (a Action) AfterWork() Action { a.After = true; return a }

func (a Action) WithRetryAfter(d time.Duration) Action { a.RetryAfter = d; return a }

func (a Action) WithRetryAfterDate(d time.Duration) Action {
	a.RetryAfter, a.RetryAfterDate = d, true
	return a
}

func (a Action) validate() error {
	switch a.Kind {
	case KindNormal, KindReset, KindDrop, KindCut, KindHang, KindFailed, KindMFARequired,
		KindGarbage, KindHuge, KindOmitRefreshToken:
	case KindStatus:
		if a.Status < 400 || a.Status > 599 {
			return fmt.Errorf("HTTP status %d is none of 400 to 599", a.Status)
		}
	case KindEnvelope:
		if failures[a.Envelope] == 0 {
			return fmt.Errorf("envelope status %q is not one of Mesh's failures", a.Envelope)
		}
	case KindSpeak:
		spoken, err := speechOf(a.dialects()...)
		if err != nil {
			return err
		}
		for _, d := range spoken {
			if d.On == OnBehaviour || d.On == OnConnect {
				return fmt.Errorf("dialect %q does not change a single request", d.Name)
			}
		}
	case KindDelay:
		if a.Min < 0 || a.Max < a.Min {
			return fmt.Errorf("delay from %v to %v is no range", a.Min, a.Max)
		}
	default:
		return fmt.Errorf("unknown kind of action %q", a.Kind)
	}
	return nil
}

// Fault is an action for whatever requests match.
type Fault struct {
	ID          int       `json:"id,omitzero"`          // given by [Server.Inject]
	BrokerType  string    `json:"brokerType,omitzero"`  // "": any
	AccountID   string    `json:"accountId,omitzero"`   // "": any
	Operation   Operation `json:"operation,omitzero"`   // "": any
	Count       int       `json:"count,omitzero"`       // how many requests it hits; 0: no limit
	Probability float64   `json:"probability,omitzero"` // of a matching request to be hit; 0 is 1
	Action      Action    `json:"action"`
}

func (f Fault) validate() error {
	if f.Count < 0 || f.Probability < 0 || f.Probability > 1 {
		return fmt.Errorf("a fault needs a count of 0 or more and a probability from 0 to 1")
	}
	if f.Operation != "" && f.Operation != OpRefresh && f.Operation != OpRemove {
		return fmt.Errorf("unknown operation %q", f.Operation)
	}
	return f.Action.validate()
}

func (f Fault) matches(op Operation, brokerType string, c *Chain) bool {
	return (f.Operation == "" || f.Operation == op) &&
		(f.BrokerType == "" || f.BrokerType == brokerType) &&
		(f.AccountID == "" || c != nil && c.HasAccount(f.AccountID))
}

// failures are the envelope statuses of failures, and the HTTP statuses that go with them.
var failures = map[string]int{
	StatusServerFailure:              http.StatusInternalServerError,
	StatusPermissionDenied:           http.StatusForbidden,
	StatusBadRequest:                 http.StatusBadRequest,
	StatusNotFound:                   http.StatusNotFound,
	StatusConflict:                   http.StatusConflict,
	StatusTooManyRequest:             http.StatusTooManyRequests,
	StatusLocked:                     http.StatusLocked,
	StatusUnavailableForLegalReasons: http.StatusUnavailableForLegalReasons,
}
