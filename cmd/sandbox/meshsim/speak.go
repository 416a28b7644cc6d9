package meshsim

import (
	"fmt"
	"maps"
	"slices"
)

// Speak makes a broker type speak dialects in addition to those of its institutions, in
// place of those of an earlier call; without names only its own. The broker type ""
// stands for all. A restart forgets it.
func (s *Server) Speak(brokerType string, dialects ...string) error {
	if _, err := speechOf(dialects...); err != nil {
		return fmt.Errorf("have %q speak: %w", brokerType, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(dialects) == 0 {
		delete(s.spoken, brokerType)
		return nil
	}
	s.spoken[brokerType] = slices.Clone(dialects)
	return nil
}

// Spoken returns the dialects that [Server.Speak] set, by broker type.
func (s *Server) Spoken() map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.spoken)
}

// speech is what an institution speaks now. The caller holds the lock.
func (s *Server) speech(brokerType string, i Institution, more ...string) speech {
	return lookUp(slices.Concat(i.Dialects, s.spoken[""], s.spoken[brokerType], more))
}

// speechTo is what the answer to a request speaks: the chain's dialects, or for an
// unknown token those of the broker type. The caller holds the lock.
func (s *Server) speechTo(q Request, a Action) speech {
	i := s.institution(ConnectSpec{BrokerType: q.BrokerType})
	if c := s.chain(q); c != nil {
		i = c.Institution
	}
	return s.speech(q.BrokerType, i, a.dialects()...)
}

// of is how a chain behaves now. The caller holds the lock.
func (s *Server) of(c *Chain) Institution {
	return s.speech(c.BrokerType, c.Institution).behaviour(c.Institution)
}
