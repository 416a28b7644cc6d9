package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// grantView is what the page shows of a grant beside what the command line does.
type grantView struct {
	view.Grant
	BrokerName string   `json:"brokerName"`
	Waits      int      `json:"waits"`
	Due        *dueView `json:"due,omitempty"`
	// WhyNot says why the grant can't be refreshed now; empty when it can.
	WhyNot string `json:"whyNot,omitempty"`
	// Revivable: the grant has expired, and can be tried once more.
	Revivable bool `json:"revivable,omitempty"`
}

type dueView struct {
	view.Due
	Scheduled bool `json:"scheduled"`
}

func (p *Page) view(g *store.Grant) grantView {
	v := grantView{Grant: view.OfGrant(g), BrokerName: g.BrokerName, Waits: g.Deferrals, WhyNot: refresher.RefreshBlocked(g, p.Now()), Revivable: refresher.ReviveBlocked(g, p.Now()) == ""}
	if v.Grant.Due != nil {
		v.Due = &dueView{Due: *v.Grant.Due, Scheduled: g.Due.Stream != ""}
	}
	return v
}

// maxGrants bounds how many grants of one user are shown.
const maxGrants = 200

func (p *Page) grantsOf(r *http.Request) (any, error) {
	user := r.URL.Query().Get("user")
	if err := events.CheckUserID(user); err != nil {
		return nil, refuse(http.StatusBadRequest, err.Error())
	}
	grants, err := p.Store.ByUser(r.Context(), user)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(grants, func(a, b *store.Grant) int {
		return cmp.Or(b.ConnectedAt.Compare(a.ConnectedAt), cmp.Compare(a.ID, b.ID))
	})
	views := []grantView{}
	for _, g := range grants[:min(maxGrants, len(grants))] {
		views = append(views, p.view(g))
	}
	return map[string]any{"grants": views, "more": len(grants) - len(views)}, nil
}

var grantID = regexp.MustCompile(`^[a-z2-7]{32}$`)

var errNoGrant = refuse(http.StatusNotFound, "there is no such grant")

func (p *Page) find(r *http.Request) (*store.Grant, error) {
	id := r.PathValue("id")
	if !grantID.MatchString(id) {
		return nil, errNoGrant
	}
	g, err := p.Store.Get(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, errNoGrant
	}
	return g, err
}

func (p *Page) grant(r *http.Request) (any, error) {
	g, err := p.find(r)
	if err != nil {
		return nil, err
	}
	return p.view(g), nil
}

// refreshWithin bounds how long somebody waits for a refresh that he asked for.
const refreshWithin = time.Minute

func (p *Page) refreshNow(r *http.Request) (any, error) {
	g, err := p.find(r)
	if err != nil {
		return nil, err
	}
	if why := refresher.RefreshBlocked(g, p.Now()); why != "" {
		return nil, refuse(http.StatusConflict, "not refreshed: "+why)
	}
	p.audit(r, "grant.refresh", g.UserID, g.ID, "begun")
	ctx, cancel := context.WithTimeout(r.Context(), refreshWithin)
	defer cancel()
	after, err := p.Refresher.Now(ctx, g)
	text, err := outcome(g, after, err)
	if err != nil {
		p.audit(r, "grant.refresh", g.UserID, g.ID, "failed: "+err.Error())
		return nil, err
	}
	p.audit(r, "grant.refresh", g.UserID, g.ID, text)
	answer := map[string]any{"text": text, "refreshed": after != nil && after.Version > g.Version}
	if after != nil {
		answer["grant"] = p.view(after)
	}
	return answer, nil
}

// revive tries an expired grant once more.
func (p *Page) revive(r *http.Request) (any, error) {
	g, err := p.find(r)
	if err != nil {
		return nil, err
	}
	if why := refresher.ReviveBlocked(g, p.Now()); why != "" {
		return nil, refuse(http.StatusConflict, "not revived: "+why)
	}
	p.audit(r, "grant.revive", g.UserID, g.ID, "begun")
	revived, err := p.Refresher.Revive(r.Context(), g)
	if errors.Is(err, store.ErrConflict) {
		err = refuse(http.StatusConflict, "not revived: the grant changed meanwhile")
	}
	if err != nil {
		p.audit(r, "grant.revive", g.UserID, g.ID, "failed: "+err.Error())
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), refreshWithin)
	defer cancel()
	after, err := p.Refresher.Now(ctx, revived)
	text, err := outcome(revived, after, err)
	if err != nil { // it is due: whichever worker is free does it
		text, err = "the grant is due; "+err.Error(), nil
	}
	p.audit(r, "grant.revive", g.UserID, g.ID, text)
	answer := map[string]any{"text": text, "refreshed": after != nil && after.Version > g.Version}
	return answer, err
}

// outcome says what became of a refresh. The error is what kept it from being
// begun.
func outcome(before, after *store.Grant, err error) (string, error) {
	var later *refresher.LaterError
	var leased *store.LeasedError
	switch {
	case errors.As(err, &later):
		why := map[string]string{
			"rate": "the rate limit is reached", "concurrency": "too many refreshes run at the broker", "queue": "too many refreshes wait",
			"retry_after": "the broker asked for a pause",
			"breaker":     "the breaker of the broker is open after failures", "credentials": "Mesh refuses the client credentials, and all refreshes pause",
		}[later.Why]
		return "", refuse(http.StatusConflict, "not refreshed: "+why)
	case errors.As(err, &leased):
		return "", refuse(http.StatusConflict, "not refreshed: a worker is refreshing the grant")
	case errors.Is(err, store.ErrStale):
		return "", refuse(http.StatusConflict, "not refreshed: the grant changed meanwhile")
	case errors.Is(err, store.ErrNotFound):
		return "", errNoGrant
	case errors.Is(err, refresher.ErrStopping):
		return "", refuse(http.StatusServiceUnavailable, "not refreshed: this worker is stopping")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "", refuse(http.StatusServiceUnavailable, "not refreshed: it did not get its turn in time")
	case err != nil:
		return "", err
	case after == nil:
		return "Mesh answered; the answer is kept and will be applied, or the grant was erased meanwhile", nil
	case after.Version > before.Version:
		return fmt.Sprintf("refreshed: version %d", after.Version), nil
	case after.State != before.State:
		return fmt.Sprintf("not refreshed: the grant is now %s (%s)", after.State, after.Reason), nil
	}
	return fmt.Sprintf("not refreshed: the refresh failed (%d in a row); it is tried again by itself", after.Attempts), nil
}

// audit records an action, for the log and for whoever else wants to know. The
// log names no user.
func (p *Page) audit(r *http.Request, action, user, grant, detail string) {
	detail = who(r) + ": " + detail
	p.Log.Info("operator", zap.String("action", action), zap.String("grant", grant), zap.String("detail", detail))
	if p.Audit != nil {
		p.Audit(action, user, grant, detail)
	}
}
