package events

import (
	"time"
	"unicode/utf8"
)

// A caller whose call with an access token was refused can say so, and gets the
// token that replaces it.

// RefusedToken names the access tokens of one version of a grant, as a reply
// names them, that were refused where they were used (with a 401, as a rule).
type RefusedToken struct {
	GrantID string `json:"grantId"`
	Version int64  `json:"version"`
}

// MaxRefused is how many tokens one request may name as refused.
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

// What became of a report that a token was refused, in RefusedResult.Outcome.
const (
	// RefusedRefreshed: the grant was refreshed for it.
	RefusedRefreshed = "refreshed"
	// RefusedReplaced: the grant had a newer version already, which is the answer.
	RefusedReplaced = "replaced"
	// RefusedTooSoon: an earlier report of the grant has counted just now. Its
	// tokens are still those that were reported.
	RefusedTooSoon = "too_soon"
	// RefusedBusy: no refresh has brought new tokens in time, or none may start now.
	RefusedBusy = "busy"
	// RefusedNotRefreshable: the grant is not refreshed, since it has no refresh
	// token, waits for its user or has ended.
	RefusedNotRefreshable = "not_refreshable"
	// RefusedUnknown: the user has no such grant, or it never had that version.
	RefusedUnknown = "unknown"
)

// RefusedOutcomes are all of them.
var RefusedOutcomes = []string{RefusedRefreshed, RefusedReplaced, RefusedTooSoon, RefusedBusy, RefusedNotRefreshable, RefusedUnknown}

// RefusedResult tells what became of one of TokenRequest.Refused.
type RefusedResult struct {
	GrantID string `json:"grantId"`
	Version int64  `json:"version"`
	// Outcome is one of the Refused constants.
	Outcome string `json:"outcome"`
	// RetryAfterSeconds, with RefusedTooSoon and RefusedBusy: reporting it again
	// earlier does not help.
	RetryAfterSeconds int64 `json:"retryAfterSeconds,omitzero"`
}

// RefreshFailing tells that the last tries to refresh a grant have failed.
type RefreshFailing struct {
	// Since is when the first of them failed. Nil: not known.
	Since *time.Time `json:"since,omitempty"`
	// Reason is why the last of them failed: the class of the failure as in the
	// metric latchkey_refreshes_total, or the Reason of a grant that waits for its user.
	Reason string `json:"reason"`
}

// Refused returns what to report where the token was refused.
func (e TokenExpiry) Refused() RefusedToken { return RefusedToken{e.GrantID, e.Version} }
