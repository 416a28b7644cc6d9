package meshsim

import "net/http"

// serveRemove is DELETE /api/v1/account. It ends the whole chain of the account.
func (s *Server) serveRemove(w http.ResponseWriter, r *http.Request) {
	var q deleteRequest
	err := readJSON(w, r, &q)
	s.exchange(w, r, Request{Operation: OpRemove, BrokerType: q.Type, Token: FingerprintOf(q.AuthToken)},
		func(id int, _ Action) (answer, error) {
			switch {
			case err != nil:
				return badRequest("the body is not the JSON object that is expected"), nil //nolint:nilerr // the client's fault, not ours
			case q.Type == "":
				return badRequest("type is required"), nil
			case q.AuthToken.Empty():
				return badRequest("authToken is required"), nil
			}
			return s.remove(id, q)
		})
}

// remove is the institution's work. The caller holds the lock.
func (s *Server) remove(id int, q deleteRequest) (answer, error) {
	now := s.cfg.Clock()
	at, known := s.book.access[FingerprintOf(q.AuthToken)]
	if !known {
		return badRequest("the access token is unknown"), nil
	}
	c := s.book.chains[at.chain-1]
	if c.BrokerType != q.Type {
		return badRequest("the access token is of another type of broker"), nil
	}
	if valid, why := c.Access[at.index].state(now); !valid {
		return badRequest("the access token is void: " + why), nil
	}
	err := s.record(
		event{At: now, Reached: &reached{Request: id}},
		event{At: now, Died: &died{Request: id, Chain: c.ID, Why: DeadByRemoval}},
	)
	if err != nil {
		return answer{}, err
	}
	return answerOf(StatusOK, http.StatusOK, envelope{Status: StatusOK}).on(OnRemoval), nil
}
