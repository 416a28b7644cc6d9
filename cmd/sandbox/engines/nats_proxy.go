package engines

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// NATSProxy stands between clients and a NATS server. It can keep single messages from the clients, and say something
// in the server's place. Its methods may be called from several goroutines.
type NATSProxy struct {
	upstream string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	clients map[*natsClient]struct{}
	swallow func(asked, subject string) bool
	asked   map[string]string // subjects of requests, by those of their replies
	stopped bool
}

// natsClient is one connection through the proxy.
type natsClient struct {
	client, server net.Conn
	writing        sync.Mutex // of whole frames to the client
}

// StartNATSProxy starts a proxy on a free port in front of a server.
func StartNATSProxy(upstream *NATS) (*NATSProxy, error) {
	ln, err := listen(0)
	if err != nil {
		return nil, fmt.Errorf("starting a proxy of NATS: %w", err)
	}
	p := &NATSProxy{upstream: address(upstream.Port()), listener: ln, clients: make(map[*natsClient]struct{}), asked: make(map[string]string)}
	p.wg.Go(p.accept)
	return p, nil
}

// URL returns the address for clients.
func (p *NATSProxy) URL() string { return "nats://" + p.listener.Addr().String() }

// Swallow asks match about every message that the server sends to a client, and keeps those from the client for which it
// says true, until called with nil. asked is the subject of the request that the message answers, empty for any other
// message; subject is that of the message itself.
func (p *NATSProxy) Swallow(match func(asked, subject string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow = match
}

// swallows reports whether a message is kept from the client.
func (p *NATSProxy) swallows(subject string) bool {
	p.mu.Lock()
	match, asked := p.swallow, p.asked[subject]
	p.mu.Unlock()
	return match != nil && match(asked, subject)
}

// asks notes what is asked with which subject for the reply.
func (p *NATSProxy) asks(subject, reply string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) > maxAsked {
		clear(p.asked)
	}
	p.asked[reply] = subject
}

// maxAsked bounds how many requests are remembered.
const maxAsked = 1 << 16

// Say sends a line of the protocol, such as -ERR 'Stale Connection', to every client as if the server did.
func (p *NATSProxy) Say(line string) {
	for _, c := range p.all() {
		_ = c.write([]byte(line + "\r\n")) // a client that is gone hears nothing
	}
}

// Stop disconnects all clients.
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
	all := make([]*natsClient, 0, len(p.clients))
	for c := range p.clients {
		all = append(all, c)
	}
	return all
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
			p.questions(c)
			c.close()
		})
		p.wg.Go(func() {
			p.answers(c)
			c.close()
			p.mu.Lock()
			delete(p.clients, c)
			p.mu.Unlock()
		})
	}
}

// questions passes on what the client sends, frame by frame.
func (p *NATSProxy) questions(c *natsClient) {
	from := bufio.NewReaderSize(c.client, 64<<10)
	for {
		frame, m, err := readFrame(from, "PUB", "HPUB")
		if err != nil {
			return
		}
		if m.reply != "" {
			p.asks(m.subject, m.reply)
		}
		if _, err := c.server.Write(frame); err != nil {
			return
		}
	}
}

// answers passes on what the server sends, frame by frame.
func (p *NATSProxy) answers(c *natsClient) {
	from := bufio.NewReaderSize(c.server, 64<<10)
	for {
		frame, m, err := readFrame(from, "MSG", "HMSG")
		if err != nil {
			return
		}
		if m.subject != "" && p.swallows(m.subject) {
			continue
		}
		if err := c.write(frame); err != nil {
			return
		}
	}
}

// natsMessage is what the proxy reads of a message. Without a subject it is no message.
type natsMessage struct{ subject, reply string }

// readFrame reads a line of the protocol, and what belongs to it where it begins with the name of a message without or
// with headers: PUB subject [reply] size, HPUB subject [reply] headers size, and from the server the same with an id
// after the subject.
func readFrame(from *bufio.Reader, plain, headed string) (frame []byte, m natsMessage, err error) {
	if frame, err = from.ReadBytes('\n'); err != nil {
		return nil, m, err
	}
	parts := strings.Fields(string(frame))
	if len(parts) < 3 || !strings.EqualFold(parts[0], plain) && !strings.EqualFold(parts[0], headed) {
		return frame, m, nil
	}
	size, err := strconv.Atoi(parts[len(parts)-1])
	if err != nil {
		return frame, m, nil //nolint:nilerr // the other side will say so
	}
	sizes, before := 1, 2 // numbers at the end; what comes before the subject for the reply
	if strings.EqualFold(parts[0], headed) {
		sizes++
	}
	if plain == "MSG" {
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
