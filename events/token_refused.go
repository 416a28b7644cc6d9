package events

import (
	"time"
	"unicode/utf8"
)

// RefusedToken reports the access tokens of one version of a grant as not working
// (usually a 401), so that workers refresh the grant.
type RefusedToken struct {
	GrantID string `json:"grantId"`
	Version int64  `json:"version"`
}

// MaxRefused limits TokenRequest.Refused.
const MaxRefused = 64

func checkRefused(all []RefusedToken) error {
	if len(all) > MaxRefused {
		return invalid(TokenGetName, "refused: names %d tokens, of at most %d", len(all), MaxRefused)
	}
	for i, r := range all {
		if r.GrantID == "" || utf8.RuneCountInString(r.GrantID) > maxGrantID {
			return invalid(TokenGetName, "refused[%d].grantId: must have from 1 to %d characters", i, maxGrantID)
		}
		if r.Version < 1 {
			return invalid(TokenGetName, "refused[%d].version: must be at least 1", i)
		}
	}
	return nil
}

// Values of RefusedResult.Outcome.
const (
	// RefusedRefreshed: the grant was refreshed.
	RefusedRefreshed = "refreshed"
	// RefusedReplaced: the grant already had a newer version, which the reply contains.
	RefusedReplaced = "replaced"
	// RefusedTooSoon: the last report about the grant was a short time ago. The tokens are
	// still the reported ones.
	RefusedTooSoon = "too_soon"
	// RefusedBusy: no refresh brought new tokens in time, or none may start now.
	RefusedBusy = "busy"
	// RefusedNotRefreshable: the grant has no refresh token, waits for its user or has
	// ended.
	RefusedNotRefreshable = "not_refreshable"
	// RefusedUnknown: the user has no such grant, or it never had the version.
	RefusedUnknown = "unknown"
)

// RefusedOutcomes are all outcomes.
var RefusedOutcomes = []string{RefusedRefreshed, RefusedReplaced, RefusedTooSoon, RefusedBusy, RefusedNotRefreshable, RefusedUnknown}

// RefusedResult is the result for one of TokenRequest.Refused.
type RefusedResult struct {
	GrantID string `json:"grantId"`
	Version int64  `json:"version"`
	// Outcome is one of the Refused constants.
	Outcome string `json:"outcome"`
	// RetryAfterSeconds, with RefusedTooSoon and RefusedBusy: an earlier report would have
	// no effect.
	RetryAfterSeconds int64 `json:"retryAfterSeconds,omitzero"`
}

// RefreshFailing says that the last attempts to refresh a grant have failed.
type RefreshFailing struct {
	// Since is the time of the first failure. Nil: not known.
	Since *time.Time `json:"since,omitempty"`
	// Reason is the class of the last failure, as in the metric latchkey_refreshes_total,
	// or the Reason of a grant that waits for its user.
	Reason string `json:"reason"`
}

// Refused returns the report that the token does not work.
func (e TokenExpiry) Refused() RefusedToken { return RefusedToken{e.GrantID, e.Version} }
