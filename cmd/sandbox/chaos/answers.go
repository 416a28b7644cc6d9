package chaos

import (
	"slices"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

// answers is the ledger as workers can know it: an answer always holds the institution's
// tokens, but not always whose they are and how long they live.
type answers struct{ meshsim.Ledger }

// speaks reports whether the institution of a chain always speaks one of some dialects.
func speaks(c meshsim.Chain, dialects ...string) bool {
	return slices.ContainsFunc(dialects, func(d string) bool { return slices.Contains(c.Institution.Dialects, d) })
}

func spoke(q meshsim.Request, dialects ...string) bool { return slices.ContainsFunc(dialects, q.Spoke) }

// inPart reports whether for a worker something may be missing from an answer: it ended early,
// or contains more than JSON. A worker uses what it finds.
func inPart(q meshsim.Request) bool {
	return spoke(q, "cutBody", "cutConnection", "cutChunks", "junkBefore", "junkAfter") || !q.Delivered && q.HTTPStatus != 0
}

// nameless reports whether an answer does not say for which accounts its tokens are.
func nameless(c meshsim.Chain, q meshsim.Request) bool {
	return spoke(q, "noAccount", "accountNull") || speaks(c, "oneTokenForAll") ||
		spoke(q, "accountIdNull", "accountIdEmpty") && (spoke(q, "mistyped") || speaks(c, "nameMistyped"))
}

// ownerless reports whether an answer leaves open for which of several accounts its tokens
// are: that may be in the missing part.
func ownerless(c meshsim.Chain, q meshsim.Request) bool {
	several := len(c.Accounts) > 1 || speaks(c, "refreshTokenEach") // before that it was one grant
	return several && inPart(q) && (nameless(c, q) || speaks(c, "deprecatedFields"))
}

// withoutAccess reports whether a worker may have found only a new refresh token in an answer.
func withoutAccess(c meshsim.Chain, q meshsim.Request) bool {
	alone := (q.Rotated || q.Resent) && !q.Issued
	return alone || (q.Rotated || q.Issued) && ownerless(c, q)
}

// unclearLifetimes are the dialects with no lifetime of an access token, or a wrong one.
var unclearLifetimes = []string{"noLifetimes", "nullLifetimes", "zeroLifetimes", "negativeLifetimes", "hugeLifetimes"}

// endless reports whether workers never know how long the access tokens of a chain live.
func endless(c meshsim.Chain) bool {
	return speaks(c, unclearLifetimes...) || c.Institution.AccessLifetime == 0 || speaks(c, "managedTokens")
}

// truthful reports whether an answer said how long its access tokens live.
func truthful(c meshsim.Chain, q meshsim.Request) bool {
	return !endless(c) && !inPart(q) && !spoke(q, "mistyped") && !spoke(q, unclearLifetimes...)
}

// family are the chains of a user's accounts: those that were connected, and those that were
// split off in an answer that a worker could attribute. (Other tokens are lost, or kept for an
// operator.)
func (a answers) family(accounts []meshsim.Account) (out []meshsim.Chain) {
	for _, c := range a.Chains {
		if !slices.ContainsFunc(accounts, func(acc meshsim.Account) bool { return c.HasAccount(acc.ID) }) {
			continue
		}
		plain := func(q meshsim.Request) bool { return q.Delivered && !ownerless(c, q) }
		if c.SplitFrom == 0 || slices.ContainsFunc(a.answersWith(c, c.Access[0]), plain) {
			out = append(out, c)
		}
	}
	return out
}

// answersWith are the requests whose answers held an access token.
func (a answers) answersWith(c meshsim.Chain, t meshsim.AccessToken) (out []meshsim.Request) {
	if t.IssuedIn == 0 {
		return nil
	}
	requester := c.ID
	for _, q := range a.Requests[t.IssuedIn-1:] {
		if q.ID == t.IssuedIn {
			requester = q.Chain // that of the chain from which this one was split off
			out = append(out, q)
			continue
		}
		if q.Chain == requester && q.Issued {
			if !q.Resent || a.issuedIn(c, t.AccountID, q) {
				break
			}
			out = append(out, q)
		}
	}
	return out
}

// issuedIn reports whether an answer held a new access token of an account.
func (a answers) issuedIn(c meshsim.Chain, accountID string, q meshsim.Request) bool {
	return slices.ContainsFunc(c.Access, func(t meshsim.AccessToken) bool { return t.AccountID == accountID && t.IssuedIn == q.ID })
}

// opens reports whether a worker takes an access token in an answer for an account's: a single
// one without an account is for all of the grant.
func opens(c meshsim.Chain, t meshsim.AccessToken, accountID string, q meshsim.Request) bool {
	return t.AccountID == accountID || t.AccountID == "" && c.HasAccount(accountID) ||
		speaks(c, "oneAccountAtATime") && nameless(c, q) && c.HasAccount(accountID)
}

// life is a time in which a worker had an access token of an account.
type life struct {
	from, to time.Time
	sure     bool // the worker had it, and knew when it ends
}

// lives are those of an account's access tokens, in the order of their beginnings.
func (a answers) lives(family []meshsim.Chain, accountID string) (out []life) {
	for _, c := range family {
		for _, t := range c.Access {
			if t.Interim {
				continue
			}
			to := t.ExpiresAt
			if to.IsZero() {
				to = a.At.Add(time.Second)
			}
			if t.IssuedIn == 0 {
				if t.AccountID == accountID {
					out = append(out, life{t.IssuedAt, to, !endless(c)})
				}
				continue
			}
			for _, q := range a.answersWith(c, t) {
				if q.AnsweredAt.After(to) {
					break
				}
				if !opens(c, t, accountID, q) || q.HTTPStatus == 0 || q.Delivered && ownerless(c, q) {
					continue
				}
				out = append(out, life{q.AnsweredAt, to, q.Delivered && truthful(c, q)})
				if q.Delivered {
					break
				}
			}
		}
	}
	slices.SortStableFunc(out, func(x, y life) int { return x.from.Compare(y.from) })
	return out
}

// deliveries is how many answers may have brought a worker an access token of an account.
func (a answers) deliveries(family []meshsim.Chain, accountID string) (n int) {
	seen := map[int]bool{}
	for _, c := range family {
		for _, t := range c.Access {
			for _, q := range a.answersWith(c, t) {
				if !t.Interim && !seen[q.ID] && opens(c, t, accountID, q) {
					seen[q.ID] = true
					n++
				}
			}
		}
	}
	return n
}

// knew reports whether the last answer with an access token before a moment said when it ends.
func (a answers) knew(c meshsim.Chain, t meshsim.AccessToken, before time.Time) bool {
	knew := t.IssuedIn == 0 && !endless(c)
	for _, q := range a.answersWith(c, t) {
		if q.At.Before(before) && q.HTTPStatus != 0 {
			knew = truthful(c, q)
		}
	}
	return knew
}
