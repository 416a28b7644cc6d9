package operator

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/store"
)

// Condition is something that is not as it should be.
type Condition struct {
	// Kind is a word for programs.
	Kind string `json:"kind"`
	// Bad: users lose something by it, or soon will.
	Bad   bool   `json:"bad"`
	Title string `json:"title"`
	// Do says what to do first.
	Do string `json:"do"`
	// Runbook is the alert whose section in docs/runbook.md says the rest.
	Runbook string `json:"runbook"`
	// View is the address on the page that shows the cause; empty: the status does.
	View string `json:"view,omitempty"`
}

// Actions that are overdue for less than overdueAfter are only late, by a queue or a
// retry; for more than overdueLong nobody does them.
const (
	overdueAfter = time.Minute
	overdueLong  = 10 * time.Minute
)

// conditions returns what is wrong, the worst first.
func conditions(o *Overview) []Condition {
	all := []Condition{}
	add := func(is bool, c Condition) {
		if is {
			all = append(all, c)
		}
	}
	var needed, other []string
	for _, c := range o.Readiness.Value.Checks {
		switch problem := c.Name + ": " + c.Detail; {
		case c.OK:
		case c.Needed:
			needed = append(needed, problem)
		default:
			other = append(other, problem)
		}
	}
	add(len(needed) > 0, Condition{
		Kind: "not_ready", Bad: true, Title: "This worker is not ready. " + strings.Join(needed, "; "), View: "workers",
		Do: "Bring back what is named; the worker reconnects by itself. Don't stop it: it may hold the only copy of a refresh token.", Runbook: "LatchkeyNotReady",
	})
	add(o.Own.PausedUntil != nil, Condition{
		Kind: "credentials_refused", Bad: true, Title: "Mesh refuses the client credentials, and all refreshes pause",
		Do: "Check mesh.client_id and mesh.client_secret.", Runbook: "LatchkeyCredentialsRefused",
	})
	var open, held []string
	for _, b := range o.Own.Brokers {
		if b.Breaker != "closed" {
			open = append(open, b.Broker)
		}
	}
	for _, v := range o.Verdicts.Value {
		if v.HeldSince != nil {
			held = append(held, v.Broker)
		}
	}
	add(len(open) > 0, Condition{
		Kind: "breaker_open", Bad: true, Title: "Refreshes are suspended after failures at " + some(open), View: "brokers",
		Do: "See with what errors they fail; if it is an outage of Mesh or the institution, wait: the worker tries again by itself.", Runbook: "LatchkeyBreakerOpen",
	})
	add(len(held) > 0, Condition{
		Kind: "verdicts_held", Bad: true, Title: "Verdicts are held at " + some(held) + ": no grant there expires because its refresh token is refused", View: "brokers",
		Do: "Find out whether the users really left. If not, correct mesh.url, Mesh or the institution; if so, release the verdicts.", Runbook: "LatchkeyVerdictsHeld",
	})
	if late := o.Overdue.Value; late.Since != nil {
		by := o.Overdue.At.Sub(*late.Since)
		add(by > overdueAfter, Condition{
			Kind: "overdue", Bad: by > overdueLong, Title: fmt.Sprintf("%s overdue, the first since %s", grantsAre(late.Grants, late.Most), by.Round(time.Second)), View: "grants?order=overdue",
			Do: "See at which broker. Where its breaker is open they wait for it; otherwise look whether workers run and are ready.", Runbook: "LatchkeyOverdue",
		})
	}
	add(o.Letters.Value > 0, Condition{
		Kind: "dead_letters", Title: fmt.Sprintf("%d %s", o.Letters.Value, plural(o.Letters.Value, "dead letter waits", "dead letters wait")), View: "dead-letters",
		Do: "Read the reasons, mend the cause, then replay or drop them.", Runbook: "LatchkeyDeadLetters",
	})
	add(len(other) > 0, Condition{
		Kind: "degraded", Title: strings.Join(other, "; "),
		Do: "Restore it before what the worker keeps in memory runs out. Don't restart workers.", Runbook: "LatchkeyKMSFailing",
	})
	for _, b := range o.Failing.Value.Brokers {
		active := o.activeAt(b.Broker)
		add(b.Grants >= manyFailing && float64(b.Grants) >= failingShare*float64(active) && !slices.Contains(open, b.Broker), Condition{
			Kind: "failing", Title: fmt.Sprintf("The last refresh of %d of %d active grants at %s failed", b.Grants, max(active, b.Grants), b.Broker), View: "grants?" + url.Values{"broker": {b.Broker}, "state": {string(store.Active)}, "order": {"failed"}}.Encode(),
			Do: "See with what errors they fail. Workers try them again by themselves.", Runbook: "LatchkeyRefreshesFailing",
		})
	}
	problems := o.problems()
	add(len(problems) > 0, Condition{
		Kind: "unknown", Title: "Some things are not known: " + strings.Join(problems, "; "),
		Do: "What is shown of it is older; each part says how old.", Runbook: "LatchkeyNotReady",
	})
	return all
}

// problems lists why parts of the overview are missing or old.
func (o *Overview) problems() (all []string) {
	for _, problem := range []string{o.Readiness.Problem, o.Stock.Problem, o.Schedule.Problem, o.Overdue.Problem, o.Failing.Problem, o.Queues.Problem, o.Letters.Problem, o.Workers.Problem, o.Verdicts.Problem} {
		if problem != "" {
			all = append(all, problem)
		}
	}
	return all
}

// It takes so many grants of a broker, and such a share of its active ones, to say that they
// fail: single ones always do.
const (
	manyFailing  = 10
	failingShare = 0.2
)

func (o *Overview) activeAt(broker string) int64 {
	for _, b := range o.Stock.Value.Brokers {
		if b.Broker == broker {
			return b.ByState[store.Active]
		}
	}
	return 0
}

// someNames bounds how many names a sentence lists.
const someNames = 5

func some(names []string) string {
	if more := len(names) - someNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:someNames], ", "), more)
	}
	return strings.Join(names, ", ")
}

func grantsAre(n, most int64) string {
	return fmt.Sprintf("%d%s %s", n, cmp.Or(map[bool]string{true: "+"}[n >= most], ""), plural(n, "grant is", "grants are"))
}

func plural[N int64 | uint64 | int](n N, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
