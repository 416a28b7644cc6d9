// Package http2peer is an HTTP/2 server that breaks off exchanges in every way the protocol
// has. net/http's server can't choose one.
package http2peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Peer serves HTTP/2 connections. An exchange whose handler panics with
// [http.ErrAbortHandler] is broken off, each time in the next of all ways. Answers must fit
// into the client's first window.
type Peer struct {
	Handler http.Handler // gets requests once their bodies are complete
	Early   func() bool  // if set, whether to break off a request between its headers and its body

	turn, early atomic.Int64
}

// TurnedAway returns how many requests were broken off before their bodies.
func (p *Peer) TurnedAway() int { return int(p.early.Load()) }

// codes of RST_STREAM. The other ways to break off are a GOAWAY that disclaims the stream,
// and the end of the connection.
var codes = []http2.ErrCode{
	http2.ErrCodeRefusedStream, http2.ErrCodeProtocol, http2.ErrCodeNo, http2.ErrCodeInternal, http2.ErrCodeFlowControl,
	http2.ErrCodeStreamClosed, http2.ErrCodeCancel, http2.ErrCodeEnhanceYourCalm, http2.ErrCodeHTTP11Required,
}

// Serve serves one connection until it ends, for [http.Server.TLSNextProto].
func (p *Peer) Serve(_ *http.Server, conn *tls.Conn, _ http.Handler) {
	c := &connection{peer: p, conn: conn, framer: http2.NewFramer(conn, conn), streams: map[uint32]*stream{}}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	c.ctx, c.cancel = context.WithCancel(context.WithValue(context.Background(), http.LocalAddrContextKey, conn.LocalAddr()))
	_ = c.read() // the connection has ended, whatever the error
	c.close()
}

type connection struct {
	peer   *Peer
	conn   *tls.Conn
	ctx    context.Context
	cancel context.CancelFunc

	streams map[uint32]*stream // the reader's own

	mu      sync.Mutex // guards writing
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	broken  bool
}

var errBroken = errors.New("the connection is broken")

func (c *connection) read() error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.conn, preface); err != nil || string(preface) != http2.ClientPreface {
		return fmt.Errorf("no preface: %w", err)
	}
	if err := c.write(func() error { return c.framer.WriteSettings() }); err != nil {
		return err
	}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		if err := c.take(frame); err != nil {
			return err
		}
	}
}

func (c *connection) take(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.write(c.framer.WriteSettingsAck)
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.write(func() error { return c.framer.WritePing(true, f.Data) })
		}
	case *http2.MetaHeadersFrame:
		s := newStream(c, f)
		if early := c.peer.Early; early != nil && early() {
			c.peer.early.Add(1)
			s.breakOff()
			return nil
		}
		c.streams[f.StreamID] = s
		if f.StreamEnded() {
			go s.serve()
		}
	case *http2.DataFrame:
		return c.takeData(f)
	case *http2.RSTStreamFrame:
		if s := c.streams[f.StreamID]; s != nil {
			s.cancel()
		}
	}
	return nil
}

func (c *connection) takeData(f *http2.DataFrame) error {
	if n := uint32(len(f.Data())); n > 0 {
		err := c.write(func() error {
			return errors.Join(c.framer.WriteWindowUpdate(0, n), c.framer.WriteWindowUpdate(f.StreamID, n))
		})
		if err != nil {
			return err
		}
	}
	if s := c.streams[f.StreamID]; s != nil {
		s.body.Write(f.Data())
		if f.StreamEnded() {
			go s.serve()
		}
	}
	return nil
}

func (c *connection) write(do func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return errBroken
	}
	return do()
}

// abandon ends the connection so that the client reads what was written before: a socket
// closed with unread data would reset the connection.
func (c *connection) abandon(last func() error) {
	err := c.write(func() error {
		if last != nil {
			_ = last()
		}
		c.broken = true
		return nil
	})
	if err != nil {
		return
	}
	_ = c.conn.CloseWrite()
	if t, ok := c.conn.NetConn().(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
	c.cancel()
}

func (c *connection) close() {
	c.mu.Lock()
	c.broken = true
	c.mu.Unlock()
	c.cancel()
	_ = c.conn.Close()
}

// stream is one exchange, and the [http.ResponseWriter] of its answer.
type stream struct {
	c      *connection
	id     uint32
	ctx    context.Context
	cancel context.CancelFunc

	head *http2.MetaHeadersFrame
	body bytes.Buffer

	header  http.Header
	started bool
	left    int64 // of the stated length; -1 when none was stated
	ended   bool
}

func newStream(c *connection, f *http2.MetaHeadersFrame) *stream {
	s := &stream{c: c, id: f.StreamID, head: f, header: http.Header{}, left: -1}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s
}

func (s *stream) request() *http.Request {
	r := &http.Request{
		Method: s.head.PseudoValue("method"), RequestURI: s.head.PseudoValue("path"), Host: s.head.PseudoValue("authority"),
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{}, RemoteAddr: s.c.conn.RemoteAddr().String(),
		Body: io.NopCloser(&s.body), ContentLength: int64(s.body.Len()), URL: &url.URL{},
	}
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
		r.URL = u
	}
	for _, f := range s.head.RegularFields() {
		r.Header.Add(f.Name, f.Value)
	}
	return r.WithContext(s.ctx)
}

func (s *stream) serve() {
	defer s.cancel()
	defer func() {
		switch v := recover(); {
		case v == nil:
			_ = s.end()
		case v == http.ErrAbortHandler: //nolint:errorlint // the value of a panic, not an error that may be wrapped
			s.breakOff()
		default:
			panic(v)
		}
	}()
	s.c.peer.Handler.ServeHTTP(s, s.request())
}

func (s *stream) Header() http.Header { return s.header }

func (s *stream) WriteHeader(status int) { _ = s.start(status) }

func (s *stream) start(status int) error {
	if s.started {
		return nil
	}
	s.started = true
	if n, err := strconv.ParseInt(s.header.Get("Content-Length"), 10, 64); err == nil {
		s.left = n
	}
	return s.c.write(func() error {
		s.c.block.Reset()
		_ = s.c.encoder.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
		for name, values := range s.header {
			for _, value := range values {
				_ = s.c.encoder.WriteField(hpack.HeaderField{Name: strings.ToLower(name), Value: value})
			}
		}
		return s.c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: s.c.block.Bytes(), EndHeaders: true})
	})
}

const maxFrame = 16 << 10

// Write implements [http.ResponseWriter]. The last byte of Content-Length ends the stream.
func (s *stream) Write(b []byte) (int, error) {
	if err := s.start(http.StatusOK); err != nil {
		return 0, err
	}
	written := 0
	for chunk := range slices.Chunk(b, maxFrame) {
		if s.ctx.Err() != nil {
			return written, s.ctx.Err()
		}
		if s.left >= 0 {
			s.left -= int64(len(chunk))
		}
		s.ended = s.left == 0
		if err := s.c.write(func() error { return s.c.framer.WriteData(s.id, s.ended, chunk) }); err != nil {
			return written, err
		}
		written += len(chunk)
	}
	return written, nil
}

// Flush implements [http.Flusher]; nothing is buffered.
func (s *stream) Flush() {}

func (s *stream) end() error {
	if err := s.start(http.StatusOK); err != nil || s.ended {
		return err
	}
	s.ended = true
	return s.c.write(func() error { return s.c.framer.WriteData(s.id, true, nil) })
}

// breakOff ends the exchange without an answer, or within it.
func (s *stream) breakOff() {
	switch way := int(s.c.peer.turn.Add(1)-1) % (len(codes) + 3); {
	case way < len(codes):
		_ = s.c.write(func() error { return s.c.framer.WriteRSTStream(s.id, codes[way]) })
	case way == len(codes):
		s.c.abandon(func() error { return s.c.framer.WriteGoAway(0, http2.ErrCodeNo, nil) })
	case way == len(codes)+1:
		s.c.abandon(func() error { return s.c.framer.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil) })
	default:
		s.c.abandon(nil)
	}
}
