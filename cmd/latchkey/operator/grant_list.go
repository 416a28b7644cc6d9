package operator

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

const (
	// grantsPerPage is how many grants the page lists at once, and maxGrants how many of one
	// user.
	grantsPerPage = 50
	maxGrants     = 200
	// maxBrowsed is how many grants are read to find them.
	maxBrowsed = 2000
)

// orderOverdue is the order of due times, of those that have passed.
const orderOverdue = "overdue"

// grantList is a page of a list of grants.
type grantList struct {
	Grants []grantView `json:"grants"`
	// Next is where the next page begins; empty: there is none.
	Next string `json:"next,omitempty"`
	// Read is how many were read to find these.
	Read int `json:"read"`
	// More counts those of a user that are not listed.
	More int `json:"more,omitempty"`
}

func (p *Page) listGrants(r *http.Request) (any, error) {
	query := r.URL.Query()
	sel, err := p.selection(query)
	if err != nil {
		return nil, err
	}
	if user := query.Get("user"); query.Has("user") {
		return p.grantsOf(r, user, sel)
	}
	page, err := p.Store.Browse(r.Context(), sel)
	if errors.Is(err, store.ErrCursor) {
		return nil, refuse(http.StatusBadRequest, "after is no place in this list")
	}
	if err != nil {
		return nil, err
	}
	return p.listed(page.Grants, grantList{Next: page.Next, Read: page.Read}), nil
}

func (p *Page) selection(query url.Values) (store.Selection, error) {
	sel := store.Selection{
		Order: store.Order(query.Get("order")), State: store.State(query.Get("state")), Broker: query.Get("broker"), Error: query.Get("error"), After: query.Get("after"),
		Limit: grantsPerPage, Reads: maxBrowsed,
	}
	if sel.Order == orderOverdue {
		sel.Order, sel.DueBefore = store.InOrderOfDue, p.Now()
	}
	switch {
	case !slices.Contains([]store.Order{store.InOrderOfBroker, store.InOrderOfDue, store.InOrderOfFailure}, sel.Order):
		return sel, refuse(http.StatusBadRequest, "order must be empty, due, overdue or failed")
	case !slices.Contains([]store.State{"", store.Active, store.MustAct, store.Expired, store.Revoked}, sel.State):
		return sel, refuse(http.StatusBadRequest, "state must be active, must_act, expired or revoked")
	}
	return sel, nil
}

// grantsOf lists the grants of one user.
func (p *Page) grantsOf(r *http.Request, user string, sel store.Selection) (any, error) {
	if err := events.CheckUserID(user); err != nil {
		return nil, refuse(http.StatusBadRequest, err.Error())
	}
	grants, err := p.Store.ByUser(r.Context(), user)
	if err != nil {
		return nil, err
	}
	read := len(grants)
	grants = slices.DeleteFunc(grants, func(g *store.Grant) bool { return !sel.Selects(g) })
	slices.SortFunc(grants, func(a, b *store.Grant) int {
		return cmp.Or(map[store.Order]int{
			store.InOrderOfDue: dueAt(a).Compare(dueAt(b)), store.InOrderOfFailure: failedAt(b).Compare(failedAt(a)),
		}[sel.Order], b.ConnectedAt.Compare(a.ConnectedAt), cmp.Compare(a.ID, b.ID))
	})
	shown := grants[:min(maxGrants, len(grants))]
	return p.listed(shown, grantList{Read: read, More: len(grants) - len(shown)}), nil
}

func dueAt(g *store.Grant) (at time.Time) {
	if g.Due != nil {
		at = g.Due.At
	}
	return at
}

func failedAt(g *store.Grant) (at time.Time) {
	if g.Failing != nil {
		at = g.Failing.At
	}
	return at
}

func (p *Page) listed(grants []*store.Grant, list grantList) grantList {
	list.Grants = []grantView{}
	for _, g := range grants {
		list.Grants = append(list.Grants, p.view(g))
	}
	return list
}
