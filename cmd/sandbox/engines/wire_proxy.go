package engines

import (
	"errors"
	"hash/maphash"
	"net"
	"slices"
	"sync"
	"time"
)

// Proxy stands between clients and FerretDB. It runs the writes to a document one at a time, because FerretDB reads,
// changes and writes a document without a lock, so that two conflicting updates can both succeed. Reads run concurrently.
// The proxy can also be made to fail. It is safe for concurrent use.
type Proxy struct {
	splits bool // conditional writes

	writing writeLocks    // held until FerretDB has answered, even when the client is gone by then
	running chan struct{} // a slot for each command that FerretDB runs at once; taken after writing

	mu       sync.Mutex
	port     int
	upstream string       // FerretDB's address
	listener net.Listener // nil while stopped
	clients  map[net.Conn]struct{}
	leave    chan struct{} // closed, and replaced, when the present clients are disconnected
	cut      bool
	faults   faults
	lookups  lookups
	wg       sync.WaitGroup
}

type faults struct {
	delay    time.Duration
	failCode int32
	fail     func(command, collection string) bool
	lose     func(command, collection string) bool
	swallow  func(command, collection string) bool
}

// maxRunning is how many commands FerretDB may run at once. One takes up to two connections to PostgreSQL, and an open
// cursor keeps one; without a free one, those that wait for their second wait for ever.
const maxRunning = 24

// newProxy prepares a proxy that will listen on port, or a free one if that is 0. FerretDB on SQLite gets its conditional
// writes split, and one write at a time, since SQLite does no more anyway.
func newProxy(port int, sqlite bool) *Proxy {
	return &Proxy{
		splits:  sqlite,
		writing: writeLocks{seed: maphash.MakeSeed(), oneByOne: sqlite},
		running: make(chan struct{}, maxRunning),
		port:    port, clients: make(map[net.Conn]struct{}), leave: make(chan struct{}),
	}
}

// enter waits until FerretDB may run one more command. The caller calls leave when it is done.
func (p *Proxy) enter() (leave func()) {
	p.running <- struct{}{}
	return func() { <-p.running }
}

// Addr returns host and port, the same for the life of the proxy.
func (p *Proxy) Addr() string { return address(p.Port()) }

// Port returns the port, the same for the life of the proxy.
func (p *Proxy) Port() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.port
}

// Cut closes all connections of clients, and new ones at once, until Restore. Running commands end on the server, without
// an answer to the client.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.disconnect()
}

func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// disconnect closes the connections of all clients. The caller holds p.mu.
func (p *Proxy) disconnect() {
	close(p.leave)
	p.leave = make(chan struct{})
	for c := range p.clients {
		abort(c)
	}
}

// FailWrites answers every write that match accepts with a MongoDB error (91: the server shuts down, 13: unauthorized) in
// place of doing it, until called with a nil match. command is findAndModify, update, insert or delete.
func (p *Proxy) FailWrites(code int32, match func(command, collection string) bool) {
	p.setFaults(func(f *faults) { f.failCode, f.fail = code, match })
}

// LoseAnswers carries out the writes that match accepts and closes the client's connection in place of an answer, until
// called with a nil match.
func (p *Proxy) LoseAnswers(match func(command, collection string) bool) {
	p.setFaults(func(f *faults) { f.lose = match })
}

// Swallow carries out the commands that match accepts and withholds the answer from the client, whose connection stays,
// until called with a nil match.
func (p *Proxy) Swallow(match func(command, collection string) bool) {
	p.setFaults(func(f *faults) { f.swallow = match })
}

// Delay delays every command by d, until called with 0.
func (p *Proxy) Delay(d time.Duration) { p.setFaults(func(f *faults) { f.delay = d }) }

func (p *Proxy) setFaults(set func(*faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	set(&p.faults)
}

func (p *Proxy) currentFaults() faults {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

func (p *Proxy) setLookups(fields lookups) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookups = fields
}

// finds reports whether FerretDB finds the documents of a collection by a field without reading all of them.
func (p *Proxy) finds(collection namespace, field string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.lookups[collection], field)
}

// start listens on the proxy's port and forwards to FerretDB at upstream.
func (p *Proxy) start(upstream string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ln, err := listen(p.port)
	if err != nil {
		return err
	}
	p.port = ln.Addr().(*net.TCPAddr).Port
	p.listener, p.upstream = ln, upstream
	p.wg.Go(func() { p.accept(ln) })
	return nil
}

// stop stops listening, disconnects the clients and returns when no command runs any more.
func (p *Proxy) stop() {
	p.mu.Lock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	p.disconnect()
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) accept(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of file descriptors, or the client was quicker to leave
			continue
		}
		p.admit(conn)
	}
}

func (p *Proxy) admit(client net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil || p.cut {
		abort(client)
		return
	}
	p.clients[client] = struct{}{}
	s := session{proxy: p, client: client, upstream: p.upstream, leave: p.leave}
	p.wg.Go(func() {
		s.serve()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.clients, client)
		client.Close()
	})
}

// abort closes a connection so that its peer sees it reset, as with a server that died.
func abort(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}
