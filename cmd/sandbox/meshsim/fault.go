package meshsim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Kind is what an [Action] does to a request.
type Kind string

// The kinds of action.
const (
	// KindNormal lets the request be.
	KindNormal Kind = "normal"
	// KindStatus answers a bare HTTP status: 401, 403, 429, 500, 502, 503…
	KindStatus Kind = "status"
	// KindReset resets the connection (TCP RST) with no answer.
	KindReset Kind = "reset"
	// KindDrop closes the connection with no answer.
	KindDrop Kind = "drop"
	// KindCut sends half of the answer and closes the connection.
	KindCut Kind = "cut"
	// KindHang never answers: it waits until the client is gone or the simulator
	// closes.
	KindHang Kind = "hang"
	// KindDelay waits between Min and Max and goes on.
	KindDelay Kind = "delay"
	// KindEnvelope answers an envelope status other than "ok".
	KindEnvelope Kind = "envelope"
	// KindFailed answers content.status "failed"; with Kill the chain dies of it.
	KindFailed Kind = "failed"
	// KindMFARequired answers content.status "mfaRequired" with an interim access
	// token.
	KindMFARequired Kind = "mfaRequired"
	// KindGarbage answers 200 with something that is not JSON.
	KindGarbage Kind = "garbage"
	// KindHuge answers 200 with well-formed JSON of Size bytes or more.
	KindHuge Kind = "huge"
	// KindUnknownFields adds fields that no contract knows to the true answer.
	KindUnknownFields Kind = "unknownFields"
	// KindOmitRefreshToken answers new access tokens and no refresh token, and the
	// institution keeps the old one. It does nothing to a replaced refresh token.
	KindOmitRefreshToken Kind = "omitRefreshToken"
	// KindDeprecated fills only the deprecated fields of the answer.
	KindDeprecated Kind = "deprecated"
	// KindSpeak answers in some more dialects.
	KindSpeak Kind = "speak"
)

// Action is what happens to one request instead of, or in addition to, what the
// institution would do. The functions below make them.
type Action struct {
	Kind Kind `json:"kind"`
	// After lets the institution do its work first, so that what it issued is lost
	// or late: the refresh token has been replaced all the same. Without it the
	// institution is never asked. KindCut always happens after.
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
	// Dialects are the names, with commas between them, of what KindSpeak speaks. Those
	// of behaviour and of connects do not change a single request.
	Dialects string `json:"dialects,omitzero"`
}

// Normal lets a request be; it makes room in a script.
func Normal() Action { return Action{Kind: KindNormal} }

// HTTPStatus answers a bare HTTP status.
func HTTPStatus(code int) Action { return Action{Kind: KindStatus, Status: code} }

// Reset resets the connection.
func Reset() Action { return Action{Kind: KindReset} }

// Drop closes the connection with no answer, after the institution did its work.
func Drop() Action { return Action{Kind: KindDrop, After: true} }

// Cut sends half of the answer, after the institution did its work.
func Cut() Action { return Action{Kind: KindCut, After: true} }

// Hang never answers, after the institution did its work: the client's timeout
// decides.
func Hang() Action { return Action{Kind: KindHang, After: true} }

// Delay waits at least low and at most high before the institution is asked.
func Delay(low, high time.Duration) Action { return Action{Kind: KindDelay, Min: low, Max: high} }

// Envelope answers an envelope status under HTTP 200, as Mesh does when only the
// envelope tells of the failure.
func Envelope(status string) Action {
	return Action{Kind: KindEnvelope, Envelope: status, Status: http.StatusOK}
}

// MappedEnvelope answers an envelope status under the HTTP status that goes with it.
func MappedEnvelope(status string) Action {
	return Action{Kind: KindEnvelope, Envelope: status, Status: httpStatusOf(status)}
}

// Failed answers content.status "failed" and leaves the chain alive.
func Failed(message string) Action { return Action{Kind: KindFailed, Message: message} }

// Killed answers content.status "failed" and the chain is dead from then on.
func Killed(message string) Action {
	return Action{Kind: KindFailed, Message: message, Kill: true}
}

// MFARequired answers content.status "mfaRequired".
func MFARequired() Action { return Action{Kind: KindMFARequired} }

// Garbage answers something that is not JSON.
func Garbage() Action { return Action{Kind: KindGarbage} }

// Huge answers JSON of at least size bytes.
func Huge(size int64) Action { return Action{Kind: KindHuge, Size: size} }

// UnknownFields adds unknown fields to the true answer.
func UnknownFields() Action { return Action{Kind: KindUnknownFields, After: true} }

// OmitRefreshToken answers without a refresh token; the old one stays good.
func OmitRefreshToken() Action { return Action{Kind: KindOmitRefreshToken, After: true} }

// DeprecatedOnly fills only the deprecated fields of the answer.
func DeprecatedOnly() Action { return Action{Kind: KindDeprecated, After: true} }

// Speak answers in some more dialects.
func Speak(dialects ...string) Action {
	return Action{Kind: KindSpeak, Dialects: strings.Join(dialects, ",")}
}

func (a Action) dialects() []string {
	if a.Dialects == "" {
		return nil
	}
	return strings.Split(a.Dialects, ",")
}

// AfterWork makes the action happen after the institution did its work.
func (a Action) AfterWork() Action { a.After = true; return a }

// WithRetryAfter adds a Retry-After header in seconds.
func (a Action) WithRetryAfter(d time.Duration) Action { a.RetryAfter = d; return a }

// WithRetryAfterDate adds a Retry-After header as an HTTP date.
func (a Action) WithRetryAfterDate(d time.Duration) Action {
	a.RetryAfter, a.RetryAfterDate = d, true
	return a
}

func (a Action) validate() error {
	switch a.Kind {
	case KindNormal, KindReset, KindDrop, KindCut, KindHang, KindFailed, KindMFARequired,
		KindGarbage, KindHuge, KindUnknownFields, KindOmitRefreshToken, KindDeprecated:
	case KindStatus:
		if a.Status < 400 || a.Status > 599 {
			return fmt.Errorf("HTTP status %d is none of 400 to 599", a.Status)
		}
	case KindEnvelope:
		if !slices.Contains(envelopeStatuses, a.Envelope) || a.Envelope == StatusOK {
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
	ID         int       `json:"id,omitzero"`         // given by [Server.Inject]
	BrokerType string    `json:"brokerType,omitzero"` // "": any
	AccountID  string    `json:"accountId,omitzero"`  // "": any
	Operation  Operation `json:"operation,omitzero"`  // "": any
	// Count is how many requests are hit before the fault is spent; 0 is no limit.
	Count int `json:"count,omitzero"`
	// Probability, in (0, 1], is the chance of a matching request to be hit; 0 is 1.
	Probability float64 `json:"probability,omitzero"`
	Action      Action  `json:"action"`
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

var envelopeStatuses = []string{
	StatusOK, StatusServerFailure, StatusPermissionDenied, StatusBadRequest, StatusNotFound, StatusConflict,
	StatusTooManyRequest, StatusLocked, StatusUnavailableForLegalReasons,
}

func httpStatusOf(envelope string) int {
	switch envelope {
	case StatusOK:
		return http.StatusOK
	case StatusPermissionDenied:
		return http.StatusForbidden
	case StatusBadRequest:
		return http.StatusBadRequest
	case StatusNotFound:
		return http.StatusNotFound
	case StatusConflict:
		return http.StatusConflict
	case StatusTooManyRequest:
		return http.StatusTooManyRequests
	case StatusLocked:
		return http.StatusLocked
	case StatusUnavailableForLegalReasons:
		return http.StatusUnavailableForLegalReasons
	}
	return http.StatusInternalServerError
}
