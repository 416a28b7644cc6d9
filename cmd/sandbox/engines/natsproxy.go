package engines

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
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
	swallow func(subject string) bool
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
	p := &NATSProxy{upstream: address(upstream.Port()), listener: ln, clients: make(map[*natsClient]struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// URL returns the address for clients.
func (p *NATSProxy) URL() string { return "nats://" + p.listener.Addr().String() }

// Swallow asks match about every message that the server sends to a client, by its subject, and keeps those from the
// client for which it says true, until called with nil.
func (p *NATSProxy) Swallow(match func(subject string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow = match
}

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
			_, _ = io.Copy(server, client) // either side may end it
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

// answers passes on what the server sends, frame by frame.
func (p *NATSProxy) answers(c *natsClient) {
	from := bufio.NewReaderSize(c.server, 64<<10)
	for {
		frame, err := from.ReadBytes('\n')
		if err != nil {
			return
		}
		subject, size, isMessage := messageLine(frame)
		if isMessage {
			body := make([]byte, size+len("\r\n"))
			if _, err := io.ReadFull(from, body); err != nil {
				return
			}
			p.mu.Lock()
			swallow := p.swallow
			p.mu.Unlock()
			if swallow != nil && swallow(subject) {
				continue
			}
			frame = append(frame, body...)
		}
		if err := c.write(frame); err != nil {
			return
		}
	}
}

// messageLine reads the first line of a message: MSG subject sid [reply] bytes, or HMSG with two numbers.
func messageLine(line []byte) (subject string, size int, ok bool) {
	parts := bytes.Fields(line)
	if len(parts) < 4 || !bytes.EqualFold(parts[0], []byte("MSG")) && !bytes.EqualFold(parts[0], []byte("HMSG")) {
		return "", 0, false
	}
	size, err := strconv.Atoi(string(parts[len(parts)-1]))
	return string(parts[1]), size, err == nil
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
