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
// changes and writes a document without a lock, so that of two conditional updates both can succeed; on MongoDB one
// does. Commands that read run side by side. The proxy can also be told to fail. Its methods may be called from
// several goroutines.
type Proxy struct {
	splits bool // conditional writes

	// writing is held from the request of a write until FerretDB has answered, even when the client is gone by then.
	writing writeLocks
	// running has room for the commands that FerretDB does at once. Taken after writing.
	running chan struct{}

	mu       sync.Mutex
	port     int
	upstream string       // FerretDB's address
	listener net.Listener // nil while stopped
	clients  map[net.Conn]struct{}
	leave    chan struct{} // closed, and replaced, when the clients at hand are disconnected
	cut      bool
	faults   faults
	lookups  lookups
	wg       sync.WaitGroup
}

// faults are the failures asked for.
type faults struct {
	delay    time.Duration
	failCode int32
	fail     func(command, collection string) bool
	lose     func(command, collection string) bool
	swallow  func(command, collection string) bool
}

// maxRunning is how many commands FerretDB may do at once. One takes up to two connections to PostgreSQL, and a cursor
// that is not read to its end keeps one; when there are no more, those that wait for their second wait for ever.
const maxRunning = 24

// newProxy prepares a proxy that does not run yet. It listens on port, or a free one if that is 0. FerretDB on SQLite
// gets its conditional writes split, and its writes one at a time, which is how SQLite does them anyway.
func newProxy(port int, sqlite bool) *Proxy {
	return &Proxy{
		splits:  sqlite,
		writing: writeLocks{seed: maphash.MakeSeed(), oneByOne: sqlite},
		running: make(chan struct{}, maxRunning),
		port:    port, clients: make(map[net.Conn]struct{}), leave: make(chan struct{}),
	}
}

// enter waits until FerretDB may do one more command, and returns what is to be called when that is done.
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

// Cut closes every client's connection and every new one at once, until Restore. A command that is running ends on the
// server, but its client never hears of it.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.disconnect()
}

// Restore ends Cut.
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

// FailWrites answers every write that match accepts with a MongoDB error of that code (91 is a server that shuts down,
// 13 one that forbids) without doing it, until called with a nil match. The command's name is the protocol's:
// findAndModify, update, insert, delete.
func (p *Proxy) FailWrites(code int32, match func(command, collection string) bool) {
	p.setFaults(func(f *faults) { f.failCode, f.fail = code, match })
}

// LoseAnswers does every write that match accepts and then closes the client's connection in place of an answer, until
// called with a nil match.
func (p *Proxy) LoseAnswers(match func(command, collection string) bool) {
	p.setFaults(func(f *faults) { f.lose = match })
}

// Swallow does every command that match accepts, and keeps the answer from the client, whose connection stays, until
// called with a nil match.
func (p *Proxy) Swallow(match func(command, collection string) bool) {
	p.setFaults(func(f *faults) { f.swallow = match })
}

// Delay holds back every command by d before it is done, until called with 0.
func (p *Proxy) Delay(d time.Duration) {
	p.setFaults(func(f *faults) { f.delay = d })
}

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

// admit serves a new client, or turns it away.
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
		defer p.dismiss(client)
		s.serve()
	})
}

func (p *Proxy) dismiss(client net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, client)
	client.Close()
}

// abort closes a connection so that its peer sees it reset, as with a server that died.
func abort(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}
