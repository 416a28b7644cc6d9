package meshsim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// faults are what can happen to requests. They are not safe for concurrent use.
type faults struct {
	chance  *rand.Rand
	lastID  int
	active  []Fault
	scripts map[string][]Action // by account
}

type plan struct {
	before, after time.Duration // delays
	action        Action
}

// Inject adds faults and returns their ids. They last until they are spent, cleared, or
// the simulator restarts. Of several that match a request the delays add up, and the
// first other one, in order of injection, decides.
func (s *Server) Inject(list ...Fault) ([]int, error) {
	for _, f := range list {
		if err := f.validate(); err != nil {
			return nil, fmt.Errorf("inject a fault: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]int, len(list))
	for i, f := range list {
		s.faults.lastID++
		f.ID = s.faults.lastID
		ids[i] = f.ID
		s.faults.active = append(s.faults.active, f)
	}
	return ids, nil
}

// Faults returns the faults that are not spent, with their remaining counts.
func (s *Server) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.faults.active)
}

// ClearFaults removes the faults with the given ids; without ids all faults and scripts.
func (s *Server) ClearFaults(ids ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(ids) == 0 {
		s.faults.active = nil
		clear(s.faults.scripts)
		return
	}
	s.faults.active = slices.DeleteFunc(s.faults.active, func(f Fault) bool { return slices.Contains(ids, f.ID) })
}

// Script sets what the next refreshes of an account meet, one action each, after those
// of earlier calls. A scripted request meets no injected fault. A restart forgets the
// script.
func (s *Server) Script(accountID string, actions ...Action) error {
	for _, a := range actions {
		if err := a.validate(); err != nil {
			return fmt.Errorf("script account %q: %w", accountID, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.book.newest(accountID); err != nil {
		return err
	}
	s.faults.scripts[accountID] = append(s.faults.scripts[accountID], actions...)
	return nil
}

func (s *Server) Unscript(accountID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.faults.scripts, accountID)
}

func (f *faults) next(op Operation, brokerType string, c *Chain) plan {
	p := plan{action: Normal()}
	if a, ok := f.scripted(op, c); ok {
		p.take(a, f.chance)
		return p
	}
	for i := range f.active {
		a := &f.active[i]
		decided := p.action.Kind != KindNormal
		if !a.matches(op, brokerType, c) || decided && a.Action.Kind != KindDelay {
			continue
		}
		if a.Probability > 0 && f.chance.Float64() >= a.Probability {
			continue
		}
		if a.Count == 1 {
			a.Count = spent
		} else if a.Count > 0 {
			a.Count--
		}
		p.take(a.Action, f.chance)
	}
	f.active = slices.DeleteFunc(f.active, func(f Fault) bool { return f.Count == spent })
	return p
}

// spent marks a fault that has hit its last request.
const spent = -1

func (f *faults) scripted(op Operation, c *Chain) (Action, bool) {
	if op != OpRefresh || c == nil {
		return Action{}, false
	}
	for _, a := range c.Accounts {
		if queue := f.scripts[a.ID]; len(queue) > 0 {
			f.scripts[a.ID] = queue[1:]
			return queue[0], true
		}
	}
	return Action{}, false
}

func (p *plan) take(a Action, chance *rand.Rand) {
	if a.Kind != KindDelay {
		p.action = a
		return
	}
	d := a.Min + time.Duration(chance.Int64N(int64(a.Max-a.Min)+1))
	if a.After {
		p.after += d
	} else {
		p.before += d
	}
}
