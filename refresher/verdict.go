package refresher

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/latchkey/latchkey/events"
)

// failure says what an answer without new tokens means (@meshconnect/node-api 2.0.28,
// BrokerRefreshTokenResponseApiResult). Where the HTTP status, the statuses of envelope and
// content and the error type differ, the one counts that gives up least.
func (a statuses) failure() *Failure {
	f := a.reading()
	f.Detail = a.detail()
	f.ErrorType, f.ErrorHash = token(a.errorType), token(a.errorHash)
	return f
}

func (a statuses) reading() *Failure {
	switch {
	case a.http == http.StatusTooManyRequests || a.says("toomanyrequest", "toomanyrequests", "ratelimited", "ratelimitexceeded") ||
		a.errorHas("ratelimit", "throttl", "toomany", "quota"):
		return &Failure{Class: RateLimited}
	case a.http >= 500 || a.http == http.StatusRequestTimeout || a.says("serverfailure", "succeeded"):
		// A gateway's 5xx says nothing about what happened behind it.
		return &Failure{Class: Transient, Ambiguous: true}
	case a.http == http.StatusUnavailableForLegalReasons || a.says("unavailableforlegalreasons"):
		return &Failure{Class: Unlawful, Reason: events.ReasonLegal}
	case a.passing():
		return &Failure{Class: Transient}
	case a.http == http.StatusUnauthorized || a.errorHas("invalidclient", "unauthorizedclient", "clientsecret", "clientid"):
		return &Failure{Class: Denied} // unless the credentials turn out to be good
	case !a.readable:
		return &Failure{Class: Transient, Ambiguous: a.http < 300}
	}
	switch word := a.verdict(); {
	case word == "ok" && a.http >= 300:
		return &Failure{Class: Transient}
	case word == "ok" && normal(a.content) != "failed" && normal(a.content) != "mfarequired":
		return &Failure{Class: Transient, Ambiguous: true}
	case a.says("mfarequired"):
		return &Failure{Class: MustAct, Reason: events.ReasonMFARequired}
	case blamesRequest(a.errorType):
		return &Failure{Class: BadRequest, Reason: events.ReasonBadRequest, AccessTokenMissing: true}
	case word == "notfound":
		return &Failure{Class: Dead, Reason: events.ReasonNotFound}
	default:
		return &Failure{Class: Dead, Reason: events.ReasonRejected, AccessTokenMissing: word == "badrequest" && a.errorType == ""}
	}
}

// verdict is the status of the envelope. An envelope without one, beside an error
// type, means what the HTTP status does.
func (a statuses) verdict() string {
	word := normal(a.envelope)
	switch {
	case word != "":
		return word
	case a.errorType == "":
		return "ok"
	case a.http == http.StatusNotFound || a.http == http.StatusGone:
		return "notfound"
	case a.http == http.StatusBadRequest || a.http == http.StatusUnprocessableEntity:
		return "badrequest"
	}
	return "ok"
}

// passing reports a passing failure, which says nothing about the token.
func (a statuses) passing() bool {
	switch a.http {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusNotFound, http.StatusGone, http.StatusUnprocessableEntity:
	default:
		if a.http >= 300 { // 403 too: a firewall's, as a rule
			return true
		}
	}
	if a.says("conflict", "locked", "permissiondenied", "forbidden") {
		return true
	}
	if status := normal(a.envelope); a.envelope != "" && !slices.Contains([]string{"ok", "badrequest", "notfound", "unauthorized"}, status) {
		return true // a word that is not known
	}
	return a.errorHas("unavailable", "timeout", "timedout", "maintenance", "temporar", "internal", "server", "network", "gateway", "upstream", "outage",
		"tryagain", "unexpected", "unknownerror", "connectionerror", "connectionfailed", "institutionerror", "institutiondown", "brokererror", "brokerdown")
}

func (a statuses) errorHas(parts ...string) bool { return hasPart(normal(a.errorType), parts...) }

func hasPart(word string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(word, part) })
}

// says reports whether one of the words of the answer is among these.
func (a statuses) says(words ...string) bool {
	return slices.ContainsFunc([]string{a.envelope, a.content, a.errorType}, func(word string) bool {
		return word != "" && slices.Contains(words, normal(word))
	})
}

// blamesRequest reports whether an error type such as missingField or invalidField
// blames the request, and not the token in it.
func blamesRequest(errorType string) bool {
	kind := normal(errorType)
	switch {
	case kind == "badrequest":
		return false // says no more than the status
	case hasPart(kind, "consent", "permission", "action", "user"):
		return false
	case strings.HasPrefix(kind, "missing"):
		return true
	case hasPart(kind, "token", "grant", "credential", "auth", "login", "session", "mfa"):
		return false
	}
	return hasPart(kind, "field", "parameter", "argument", "validation", "malformed", "schema", "format", "request", "body", "required", "unsupported",
		"input", "value", "property", "type", "range", "length", "mismatch", "serializ", "parse", "metadata", "incomplete")
}

// normal makes words comparable: programs write badRequest, BadRequest and bad_request.
func normal(word string) string {
	if len(word) > maxWord {
		return "toolong"
	}
	return strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return unicode.ToLower(r)
		}
		return -1
	}, word)
}

// maxWord bounds the words of an answer that are kept.
const maxWord = 64

// plainWord is a word that may be shown. Anything else may quote what was presented.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func token(word string) string { return plainWord.FindString(word) }

var knownStatuses = []string{
	"ok", "serverFailure", "permissionDenied", "badRequest", "notFound", "conflict", "tooManyRequest",
	"locked", "unavailableForLegalReasons", "succeeded", "failed", "mfaRequired",
}

// detail names the HTTP status and the statuses of the body, if they are known words.
func (a statuses) detail() string {
	known := func(status string) string {
		for _, name := range knownStatuses {
			if normal(name) == normal(status) {
				return name
			}
		}
		return "other"
	}
	text := fmt.Sprintf("HTTP %d", a.http)
	if !a.readable {
		return text + ", not the JSON expected"
	}
	if a.envelope != "" {
		text += ", status " + known(a.envelope)
	}
	if a.content != "" {
		text += ", content " + known(a.content)
	}
	return text
}

// retryAfter reads a Retry-After header in either of its forms (RFC 9110).
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return min(at.Sub(now), 24*time.Hour)
	}
	return 0
}
