package operator

import (
	"context"
	"net/http"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

func (p *Page) findVerdicts(ctx context.Context) ([]view.Verdicts, error) {
	all, err := p.Store.Verdicts(ctx)
	views := []view.Verdicts{}
	for _, v := range all[:min(maxBrokers, len(all))] {
		views = append(views, view.OfVerdicts(v))
	}
	return views, err
}

// decide records an operator's decision about the verdicts at a broker.
func (p *Page) decide(r *http.Request) (any, error) {
	var named struct {
		Broker   string         `json:"broker"`
		Decision store.Decision `json:"decision"`
	}
	if err := body(r, &named); err != nil {
		return nil, err
	}
	if named.Broker == "" || named.Decision != store.DecidedHold && named.Decision != store.DecidedRelease {
		return nil, refuse(http.StatusBadRequest, "the body must name a broker, and hold or release")
	}
	broker := events.BrokerKey(named.Broker)
	p.audit(r, "verdicts."+string(named.Decision), "", "", broker+" begun")
	// A decision is finished, and its outcome known, even if the operator closes the page.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), actWithin)
	defer cancel()
	v, err := p.Store.Decide(ctx, broker, named.Decision, p.Now())
	if err != nil {
		p.audit(r, "verdicts."+string(named.Decision), "", "", broker+" failed")
		return nil, err
	}
	p.verdicts.forget()
	p.audit(r, "verdicts."+string(named.Decision), "", "", broker+" done")
	return view.OfVerdicts(&v), nil
}
