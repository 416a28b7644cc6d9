package tokens

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/latchkey/latchkey/events"
)

// request is a message that an endpoint answers.
type request interface {
	Data() []byte
	Headers() micro.Headers
	Subject() string
	Reply() string
	// done counts the request with the code of its answer.
	done(code string)
}

// discovery registers endpoints with NATS and describes them to tools such as `nats
// micro`, in the messages and on the subjects of micro (ADR-32). micro itself counts a
// request when its handler returns: these handlers answer later, and so every request
// would be a success within microseconds.
type discovery struct {
	conn      *nats.Conn
	info      micro.Info
	started   time.Time
	now       func() time.Time
	data      func() any // nil: none
	answers   func(reply string) bool
	endpoints []*endpoint
	subs      []*nats.Subscription
}

// endpoint counts the requests to a subject that were answered.
type endpoint struct {
	now    func() time.Time
	handle func(request)
	// observe, if set, is told of each answer.
	observe func(code string, took time.Duration)

	mu    sync.Mutex
	stats micro.EndpointStats
}

// discoverable returns the service without endpoints. now is the machine's clock, as in
// micro: what is counted must not depend on what handlers do. answers tells reply subjects to
// which discovery may answer.
func discoverable(nc *nats.Conn, name, description string, metadata map[string]string, data func() any, now func() time.Time, answers func(reply string) bool) *discovery {
	if metadata == nil {
		metadata = map[string]string{} // clients expect an object
	}
	return &discovery{
		conn: nc, started: now().UTC(), now: now, data: data, answers: answers,
		info: micro.Info{
			ServiceIdentity: micro.ServiceIdentity{Name: name, ID: uuid.NewString(), Version: ServiceVersion, Metadata: metadata},
			Type:            micro.InfoResponseType, Description: description, Endpoints: []micro.EndpointInfo{},
		},
	}
}

// add has an endpoint receive what is sent to a subject, as one of all workers.
func (d *discovery) add(name, subject string, handle func(request), metadata map[string]string, observe func(code string, took time.Duration)) error {
	queue := d.info.Name
	e := &endpoint{now: d.now, handle: handle, observe: observe, stats: micro.EndpointStats{Name: name, Subject: subject, QueueGroup: queue}}
	sub, err := d.conn.QueueSubscribe(subject, queue, e.receive)
	if err != nil {
		return fmt.Errorf("subscribing to %s: %w", subject, err)
	}
	d.subs = append(d.subs, sub)
	d.endpoints = append(d.endpoints, e)
	d.info.Endpoints = append(d.info.Endpoints, micro.EndpointInfo{Name: name, Subject: subject, QueueGroup: queue, Metadata: metadata})
	return nil
}

// announce answers discovery from now on. No endpoint may be added after it.
func (d *discovery) announce() error {
	identity := d.info.ServiceIdentity
	for verb, reply := range map[micro.Verb]func() any{
		micro.PingVerb:  func() any { return micro.Ping{ServiceIdentity: identity, Type: micro.PingResponseType} },
		micro.InfoVerb:  func() any { return d.info },
		micro.StatsVerb: func() any { return d.stats() },
	} {
		for _, whom := range [][2]string{{"", ""}, {identity.Name, ""}, {identity.Name, identity.ID}} {
			subject, err := micro.ControlSubject(verb, whom[0], whom[1])
			if err != nil {
				return fmt.Errorf("the subjects of discovery: %w", err)
			}
			sub, err := d.conn.Subscribe(subject, func(m *nats.Msg) {
				if body, err := json.Marshal(reply()); err == nil && d.answers(m.Reply) {
					_ = m.Respond(body) // who asked asks again
				}
			})
			if err != nil {
				return fmt.Errorf("subscribing to %s: %w", subject, err)
			}
			d.subs = append(d.subs, sub)
		}
	}
	return nil
}

func (d *discovery) stats() micro.Stats {
	stats := micro.Stats{ServiceIdentity: d.info.ServiceIdentity, Type: micro.StatsResponseType, Started: d.started, Endpoints: []*micro.EndpointStats{}}
	var data json.RawMessage
	if d.data != nil {
		data, _ = json.Marshal(d.data())
	}
	for _, e := range d.endpoints {
		e.mu.Lock()
		its := e.stats
		e.mu.Unlock()
		if its.NumRequests > 0 {
			its.AverageProcessingTime = its.ProcessingTime / time.Duration(its.NumRequests)
		}
		its.Data = data
		stats.Endpoints = append(stats.Endpoints, &its)
	}
	return stats
}

// stop takes no more requests. Those that NATS has sent already are still received.
func (d *discovery) stop() (failed error) {
	for _, sub := range d.subs {
		if err := sub.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			failed = errors.Join(failed, fmt.Errorf("draining %s: %w", sub.Subject, err))
		}
	}
	return failed
}

func (e *endpoint) receive(m *nats.Msg) { e.handle(&received{msg: m, endpoint: e, at: e.now()}) }

// received is a request from NATS.
type received struct {
	msg      *nats.Msg
	endpoint *endpoint
	at       time.Time
}

func (r *received) Data() []byte           { return r.msg.Data }
func (r *received) Headers() micro.Headers { return micro.Headers(r.msg.Header) }
func (r *received) Subject() string        { return r.msg.Subject }
func (r *received) Reply() string          { return r.msg.Reply }

// done implements request. All answers but tokens, keys and completed codes are errors.
func (r *received) done(code string) {
	e, took := r.endpoint, r.endpoint.now().Sub(r.at)
	if e.observe != nil {
		e.observe(code, took)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.NumRequests++
	e.stats.ProcessingTime += took
	if code != codeOK {
		e.stats.NumErrors++
		e.stats.LastError = numberOf(code) + ":" + code
	}
}

// numberOf is a code as the number in a refusal's header.
func numberOf(code string) string {
	if n, ok := events.CodeNumber[code]; ok {
		return n
	}
	if n, ok := events.MFACodeNumber[code]; ok {
		return n
	}
	return events.CodeNumber[events.CodeBadRequest] // codeBadReply, which has no answer
}
