package refreshertest

import (
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// RefuseCredentials has Mesh refuse the client's credentials, until its faults are
// cleared.
func (r *Rig) RefuseCredentials() {
	r.T.Helper()
	_, err := r.Sim.Inject(meshsim.Fault{Action: meshsim.HTTPStatus(401)})
	require.NoError(r.T, err)
}

// Block stops the next refresh of an account once the institution has done its
// work, before the answer goes out.
func (r *Rig) Block(account string) {
	r.T.Helper()
	require.NoError(r.T, r.Sim.Script(account, meshsim.Delay(1, 1).AfterWork()))
}

// FailWrites has the database refuse replacements of grants, with an answer.
func (r *Rig) FailWrites(fail bool) {
	r.T.Helper()
	var match func(command, collection string) bool
	if fail {
		match = func(command, collection string) bool { return command == "update" && collection == "grants" }
	}
	r.DB.Proxy().FailWrites(91, match)
}

// WaitSent waits until everything is sent that workers have begun to send.
func (r *Rig) WaitSent() {
	for _, w := range r.workers {
		w.Dispatcher.Wait()
	}
}

// Wait waits until c receives.
func (r *Rig) Wait(c <-chan struct{}) {
	r.T.Helper()
	enginestest.Receive(r.T, c)
}

// Result waits for an error that arrives at c.
func (r *Rig) Result(c <-chan error) error {
	r.T.Helper()
	return enginestest.Receive(r.T, c)
}

// Eventually waits for a condition.
func (r *Rig) Eventually(condition func() bool, what string) {
	r.T.Helper()
	require.Eventually(r.T, condition, Patience, 10*time.Millisecond, what)
}

// Calls counts the refreshes that arrived at the simulator.
func (r *Rig) Calls() int { return len(r.Sim.Ledger().Requests) }

// Messages returns what lies in a stream under a subject.
func (r *Rig) Messages(stream, subject string) []*jetstream.RawStreamMsg {
	r.T.Helper()
	r.WaitSent()
	s, err := r.JS.Stream(r.T.Context(), stream)
	require.NoError(r.T, err)
	var out []*jetstream.RawStreamMsg
	for seq := uint64(1); ; {
		m, err := s.GetMsg(r.T.Context(), seq, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return out
		}
		require.NoError(r.T, err)
		out, seq = append(out, m), m.Sequence+1
	}
}

// LifecycleEvents lists the events that were published about a user, as "kind: reason".
func (r *Rig) LifecycleEvents(user string) []string {
	r.T.Helper()
	var out []string
	for _, m := range r.Messages(r.Subjects.LifecycleStream(), r.Subjects.LifecycleAll("token.*")) {
		e, err := events.DecodeLifecycle(m.Data)
		require.NoError(r.T, err)
		if e.Data.UserID == user {
			out = append(out, e.Kind+": "+string(e.Data.Reason))
		}
	}
	return out
}

// RecoveryEntries returns the recovery stream's messages.
func (r *Rig) RecoveryEntries() [][]byte {
	r.T.Helper()
	var out [][]byte
	for _, m := range r.Messages(r.Subjects.RecoveryStream(), ">") {
		out = append(out, m.Data)
	}
	return out
}
