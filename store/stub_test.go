package store_test

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"
)

// stub speaks MongoDB's wire protocol, for what no server answers at will: it
// says what it is, and gives one answer to every command.
type stub struct {
	addr string

	mu       sync.Mutex
	hello    bson.D
	answer   func(command string) bson.D
	received []received
}

// received is a command as it came.
type received struct {
	name string
	body bson.Raw
}

// wellAnswered is an answer that every command takes for success.
func wellAnswered(string) bson.D {
	return bson.D{{Key: "ok", Value: 1}, {Key: "n", Value: 1}, {Key: "nModified", Value: 1}, {Key: "value", Value: nil}, {Key: "cursor", Value: bson.D{
		{Key: "id", Value: int64(0)}, {Key: "ns", Value: "d.c"}, {Key: "firstBatch", Value: bson.A{}},
	}}}
}

// newStub starts a stub that says nothing of itself yet.
func newStub(t testing.TB) *stub {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &stub{addr: ln.Addr().String(), answer: wellAnswered}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go s.serve(conn)
		}
	})
	t.Cleanup(func() { ln.Close(); conns.Wait() })
	return s
}

// replicaSet starts stubs that say they are one replica set. The first is its primary.
func replicaSet(t testing.TB, members int) []*stub {
	t.Helper()
	all := make([]*stub, members)
	hosts := bson.A{}
	for i := range all {
		all[i] = newStub(t)
		hosts = append(hosts, all[i].addr)
	}
	for i, s := range all {
		s.hello = bson.D{
			{Key: "ok", Value: 1},
			{Key: "isWritablePrimary", Value: i == 0},
			{Key: "ismaster", Value: i == 0},
			{Key: "secondary", Value: i > 0},
			{Key: "setName", Value: "rs"},
			{Key: "hosts", Value: hosts},
			{Key: "me", Value: s.addr},
			{Key: "primary", Value: all[0].addr},
			{Key: "minWireVersion", Value: 0},
			{Key: "maxWireVersion", Value: 21},
			{Key: "logicalSessionTimeoutMinutes", Value: 30},
			{Key: "maxBsonObjectSize", Value: 16 << 20},
			{Key: "maxMessageSizeBytes", Value: 48_000_000},
			{Key: "maxWriteBatchSize", Value: 100_000},
		}
	}
	return all
}

// answerWith exchanges the answer.
func (s *stub) answerWith(answer func(command string) bson.D) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// take returns the commands that came since it was last called, without those
// by which a driver watches and leaves a server, and pings.
func (s *stub) take() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.received
	s.received = nil
	return all
}

func (s *stub) serve(conn net.Conn) {
	defer conn.Close()
	for {
		head := make([]byte, 16)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		rest := make([]byte, binary.LittleEndian.Uint32(head)-16)
		if _, err := io.ReadFull(conn, rest); err != nil {
			return
		}
		_, id, _, code, _, _ := wiremessage.ReadHeader(head)
		var out []byte
		if code == wiremessage.OpMsg {
			out = s.reply(id, bson.Raw(bsoncore.Document(rest[5:][:binary.LittleEndian.Uint32(rest[5:])])))
		} else { // a driver's first hello
			var start int32
			start, out = wiremessage.AppendHeaderStart(nil, 0, id, wiremessage.OpReply)
			out = wiremessage.AppendReplyFlags(out, 0)
			out = wiremessage.AppendReplyCursorID(out, 0)
			out = wiremessage.AppendReplyStartingFrom(out, 0)
			out = wiremessage.AppendReplyNumberReturned(out, 1)
			out = append(out, s.document("hello", nil)...)
			out = bsoncore.UpdateLength(out, start, int32(len(out)))
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

func (s *stub) reply(id int32, body bson.Raw) []byte {
	first, err := body.IndexErr(0)
	if err != nil {
		return nil
	}
	start, out := wiremessage.AppendHeaderStart(nil, 0, id, wiremessage.OpMsg)
	out = wiremessage.AppendMsgFlags(out, 0)
	out = wiremessage.AppendMsgSectionType(out, wiremessage.SingleDocument)
	out = append(out, s.document(first.Key(), body)...)
	return bsoncore.UpdateLength(out, start, int32(len(out)))
}

func (s *stub) document(command string, body bson.Raw) []byte {
	s.mu.Lock()
	doc, answer := s.hello, s.answer
	switch command {
	case "hello", "isMaster", "ismaster":
		answer = nil
	case "ping", "endSessions":
		doc, answer = bson.D{{Key: "ok", Value: 1}}, nil
	default:
		s.received = append(s.received, received{command, body})
	}
	s.mu.Unlock()
	if answer != nil {
		doc = answer(command) // which may take its time
	}
	raw, err := bson.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return raw
}
