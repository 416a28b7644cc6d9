package tokens

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/latchkey/latchkey/events"
)

// places bound how many requests wait for each thing: a broker, a turn, the audit log.
// So those that wait for one broker, or that come from one caller, take no place from
// the others. A request without a place is refused as busy.
type places struct {
	mu    sync.Mutex
	rooms map[string]*room // by what requests wait for; an empty one is deleted
}

type room struct {
	taken   int
	callers map[string]int
}

// take takes one of the size places of those that wait for something. A caller may have
// as many as are left free, so that one alone gets half of them and never the last.
func (p *places) take(what, caller string, size int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rooms[what]
	if r == nil {
		r = &room{callers: map[string]int{}}
	}
	if r.callers[caller] >= size-r.taken {
		return false
	}
	if p.rooms == nil {
		p.rooms = map[string]*room{}
	}
	p.rooms[what] = r
	r.taken++
	r.callers[caller]++
	return true
}

// free gives a place back.
func (p *places) free(what, caller string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rooms[what]
	r.taken--
	if r.callers[caller]--; r.callers[caller] == 0 {
		delete(r.callers, caller)
	}
	if r.taken == 0 {
		delete(p.rooms, what)
	}
}

// What requests wait for, apart from brokers.
const (
	forWork  = "work"  // their turn to read, and what follows
	forKeys  = "keys"  // a data key, of KMS or the database
	forAudit = "audit" // the audit log

	forConnectKeys = "connect keys"
	forCodes       = "codes" // a refresh completed with a user's code
)

// forBroker is what requests wait for while their tokens are refreshed.
func forBroker(broker string) string { return "broker " + events.BrokerKey(broker) }

// maxWaiting bounds the requests that wait and need hardly more than memory.
const maxWaiting = 4096

// turns lets callers take turns at reading: next is the caller that has waited longest
// since its last turn, not the request that has waited longest.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting map[string][]chan struct{} // by caller; closed when its turn comes
	order   []string                   // the callers that wait, next first
}

// enter waits for a turn. Unless it returns an error the caller must leave.
func (t *turns) enter(ctx context.Context, caller string) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	if t.waiting == nil {
		t.waiting = map[string][]chan struct{}{}
	}
	turn := make(chan struct{})
	if len(t.waiting[caller]) == 0 {
		t.order = append(t.order, caller)
	}
	t.waiting[caller] = append(t.waiting[caller], turn)
	t.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(t.waiting[caller], turn)
	if i >= 0 {
		t.waiting[caller] = slices.Delete(t.waiting[caller], i, i+1)
		t.drop(caller)
	}
	t.mu.Unlock()
	if i < 0 { // its turn came at the last moment
		t.leave()
	}
	return ctx.Err()
}

// drop removes a caller that no longer waits. The lock must be held.
func (t *turns) drop(caller string) {
	if len(t.waiting[caller]) == 0 {
		delete(t.waiting, caller)
		t.order = slices.DeleteFunc(t.order, func(c string) bool { return c == caller })
	}
}

// leave ends a turn.
func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 {
		t.free++
		return
	}
	caller := t.order[0]
	t.order = append(t.order[1:], caller)
	turn := t.waiting[caller][0]
	t.waiting[caller] = t.waiting[caller][1:]
	t.drop(caller)
	close(turn)
}

// requesterOf tells callers apart by their connection's inbox, or across accounts by what
// the server says. A forged inbox gains little, since places are bounded over all callers
// too.
func requesterOf(req request) string {
	reply := events.ReplyInbox(req.Reply())
	if strings.HasPrefix(reply, events.ImportedReply+".") {
		account, user, name := requestInfo(req.Headers())
		return strings.Join([]string{events.ImportedReply, account, user, name}, " ")
	}
	return bounded(reply[:max(strings.LastIndexByte(reply, '.'), 0)])
}
