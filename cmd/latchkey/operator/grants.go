package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// grantView adds to the view of a grant what only the page shows.
type grantView struct {
	view.Grant
	BrokerName string   `json:"brokerName"`
	Deferrals  int      `json:"waits"`
	Due        *dueView `json:"due,omitempty"`
	// RefreshBlocked says why the grant can't be refreshed now; empty if it can.
	RefreshBlocked string `json:"whyNot,omitempty"`
	// Revivable: the grant has expired, and can be tried once more.
	Revivable bool `json:"revivable,omitempty"`
}

type dueView struct {
	view.Due
	Scheduled bool `json:"scheduled"`
}

func (p *Page) view(g *store.Grant) grantView {
	v := grantView{Grant: view.OfGrant(g), BrokerName: g.BrokerName, Deferrals: g.Deferrals, RefreshBlocked: refresher.RefreshBlocked(g, p.Now()), Revivable: refresher.ReviveBlocked(g, p.Now()) == ""}
	if v.Grant.Due != nil {
		v.Due = &dueView{Due: *v.Grant.Due, Scheduled: g.Due.Stream != ""}
	}
	return v
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

// refreshWithin bounds how long an operator waits for a refresh.
const refreshWithin = time.Minute

// refreshAnswer is the answer to an action that refreshes a grant.
type refreshAnswer struct {
	Text      string     `json:"text"`
	Refreshed bool       `json:"refreshed"`
	Grant     *grantView `json:"grant,omitempty"`
}

func (p *Page) refreshNow(r *http.Request) (any, error) {
	return p.onGrant(r, "grant.refresh", "refreshed", refresher.RefreshBlocked, func(ctx context.Context, g *store.Grant) (refreshAnswer, error) {
		after, err := p.Refresher.RefreshNow(ctx, g)
		text, err := outcome(g, after, err)
		answer := refreshAnswer{Text: text, Refreshed: after != nil && after.Version > g.Version}
		if after != nil {
			v := p.view(after)
			answer.Grant = &v
		}
		return answer, err
	})
}

// revive tries an expired grant once more.
func (p *Page) revive(r *http.Request) (any, error) {
	return p.onGrant(r, "grant.revive", "revived", refresher.ReviveBlocked, func(ctx context.Context, g *store.Grant) (refreshAnswer, error) {
		revived, err := p.Refresher.Revive(ctx, g)
		if errors.Is(err, store.ErrConflict) {
			err = refuse(http.StatusConflict, "not revived: the grant changed meanwhile")
		}
		if err != nil {
			return refreshAnswer{}, err
		}
		after, err := p.Refresher.RefreshNow(ctx, revived)
		text, err := outcome(revived, after, err)
		if err != nil { // the grant is due, and any free worker refreshes it
			text = "the grant is due; " + err.Error()
		}
		return refreshAnswer{Text: text, Refreshed: after != nil && after.Version > g.Version}, nil
	})
}

// onGrant does something to the grant that a request names, unless it is blocked.
func (p *Page) onGrant(r *http.Request, action, done string, blocked func(*store.Grant, time.Time) string, do func(context.Context, *store.Grant) (refreshAnswer, error)) (any, error) {
	g, err := p.find(r)
	if err != nil {
		return nil, err
	}
	if why := blocked(g, p.Now()); why != "" {
		return nil, refuse(http.StatusConflict, "not "+done+": "+why)
	}
	p.audit(r, action, g.UserID, g.ID, "begun")
	ctx, cancel := context.WithTimeout(r.Context(), refreshWithin)
	defer cancel()
	answer, err := do(ctx, g)
	if err != nil {
		p.audit(r, action, g.UserID, g.ID, "failed: "+err.Error())
		return nil, err
	}
	p.audit(r, action, g.UserID, g.ID, answer.Text)
	return answer, nil
}

// outcome describes how a refresh ended. It returns an error if the refresh did not
// begin.
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

// audit records an action in the log, which names no user, and in the audit log.
func (p *Page) audit(r *http.Request, action, user, grant, detail string) {
	detail = visitor(r) + ": " + detail
	p.Log.Info("operator", zap.String("action", action), zap.String("grant", grant), zap.String("detail", detail))
	if p.Audit != nil {
		p.Audit(action, user, grant, detail)
	}
}
