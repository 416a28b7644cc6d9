package engines

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// NATSProxy stands between clients and a NATS server. It can withhold single messages from the clients, and say something
// in the server's place. It is safe for concurrent use.
type NATSProxy struct {
	upstream string
	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	clients  map[*natsClient]struct{}
	swallow  func(request, subject string) bool
	requests map[string]string // subjects of requests, by those of their replies
	stopped  bool
}

type natsClient struct {
	client, server net.Conn
	writing        sync.Mutex // of whole frames to the client
}

func StartNATSProxy(upstream *NATS) (*NATSProxy, error) {
	ln, err := listen(0)
	if err != nil {
		return nil, fmt.Errorf("starting a proxy of NATS: %w", err)
	}
	p := &NATSProxy{upstream: address(upstream.Port()), listener: ln, clients: make(map[*natsClient]struct{}), requests: make(map[string]string)}
	p.wg.Go(p.accept)
	return p, nil
}

func (p *NATSProxy) URL() string { return "nats://" + p.listener.Addr().String() }

// Swallow withholds from the clients the messages that match accepts, until called with nil. request is the subject of the
// request that a message answers, empty for any other message; subject is that of the message itself.
func (p *NATSProxy) Swallow(match func(request, subject string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow = match
}

func (p *NATSProxy) swallows(subject string) bool {
	p.mu.Lock()
	match, request := p.swallow, p.requests[subject]
	p.mu.Unlock()
	return match != nil && match(request, subject)
}

func (p *NATSProxy) noteRequest(subject, reply string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.requests) > 1<<16 {
		clear(p.requests)
	}
	p.requests[reply] = subject
}

// Say sends a line of the protocol, such as -ERR 'Stale Connection', to every client as if the server did.
func (p *NATSProxy) Say(line string) {
	for _, c := range p.all() {
		_ = c.write([]byte(line + "\r\n")) // fails when the client is gone
	}
}

func (p *NATSProxy) Stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.listener.Close()
	for _, c := range p.all() {
		c.close()
	}
	p.wg.Wait()
}

func (p *NATSProxy) all() []*natsClient {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.clients))
}

func (p *NATSProxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.upstream)
		if err != nil {
			abort(client)
			continue
		}
		c := &natsClient{client: client, server: server}
		p.mu.Lock()
		if p.stopped {
			p.mu.Unlock()
			c.close()
			return
		}
		p.clients[c] = struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() {
			defer c.close()
			forward(client, "PUB", func(frame []byte, m natsMessage) error {
				if m.reply != "" {
					p.noteRequest(m.subject, m.reply)
				}
				_, err := server.Write(frame)
				return err
			})
		})
		p.wg.Go(func() {
			forward(server, "MSG", func(frame []byte, m natsMessage) error {
				if m.subject != "" && p.swallows(m.subject) {
					return nil
				}
				return c.write(frame)
			})
			c.close()
			p.mu.Lock()
			delete(p.clients, c)
			p.mu.Unlock()
		})
	}
}

// forward passes frames on, whose messages are of a kind, until either side is gone.
func forward(from io.Reader, kind string, to func([]byte, natsMessage) error) {
	for buffered := bufio.NewReaderSize(from, 64<<10); ; {
		frame, m, err := readFrame(buffered, kind)
		if err != nil || to(frame, m) != nil {
			return
		}
	}
}

// natsMessage is what the proxy needs to know of a message. Without a subject it is no message.
type natsMessage struct{ subject, reply string }

// readFrame reads a line of the protocol, and the body of a message: PUB subject [reply] size, or with headers HPUB
// subject [reply] headers size, and from the server the same with an id after the subject.
func readFrame(from *bufio.Reader, kind string) (frame []byte, m natsMessage, err error) {
	if frame, err = from.ReadBytes('\n'); err != nil {
		return nil, m, err
	}
	parts := strings.Fields(string(frame))
	headed := len(parts) > 0 && strings.EqualFold(parts[0], "H"+kind)
	if len(parts) < 3 || !headed && !strings.EqualFold(parts[0], kind) {
		return frame, m, nil
	}
	size, err := strconv.Atoi(parts[len(parts)-1])
	if err != nil {
		return frame, m, nil //nolint:nilerr // the other side will say so
	}
	sizes, before := 1, 2 // numbers at the end; what comes before the subject for the reply
	if headed {
		sizes++
	}
	if kind == "MSG" {
		before++
	}
	if m.subject = parts[1]; len(parts) > before+sizes {
		m.reply = parts[before]
	}
	start := len(frame)
	frame = append(frame, make([]byte, size+len("\r\n"))...)
	_, err = io.ReadFull(from, frame[start:])
	return frame, m, err
}

func (c *natsClient) write(frame []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.client.Write(frame)
	return err
}

func (c *natsClient) close() {
	abort(c.client)
	c.server.Close()
}
