package engines

import (
	"encoding/binary"
	"fmt"
	"io"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"
)

const (
	wireHeaderLen = 16
	maxWireLen    = 48_000_000
)

// message is one message of MongoDB's wire protocol with its header.
type message []byte

// readMessage reads one message. It returns io.EOF if the connection ends between two of them.
func readMessage(r io.Reader) (message, error) {
	header := make([]byte, wireHeaderLen)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	n := int(int32(binary.LittleEndian.Uint32(header)))
	if n < wireHeaderLen || n > maxWireLen {
		return nil, fmt.Errorf("wire message of %d bytes", n)
	}
	m := make(message, n)
	copy(m, header)
	if _, err := io.ReadFull(r, m[wireHeaderLen:]); err != nil {
		return nil, err
	}
	return m, nil
}

func (m message) requestID() int32 {
	_, id, _, _, _, _ := wiremessage.ReadHeader(m)
	return id
}

// isMsg reports whether the message is an OP_MSG, which carries all commands to a modern server.
func (m message) isMsg() bool {
	_, _, _, code, _, _ := wiremessage.ReadHeader(m)
	return code == wiremessage.OpMsg && len(m) >= wireHeaderLen+4
}

func (m message) flags() wiremessage.MsgFlag {
	flags, _, _ := wiremessage.ReadMsgFlags(m[wireHeaderLen:])
	return flags
}

// moreToCome means, in a request, that the client waits for no answer, and in an answer that another follows.
func (m message) moreToCome() bool { return m.isMsg() && m.flags()&wiremessage.MoreToCome != 0 }

// wantAnswer clears moreToCome. It spoils the checksum, which no driver sends.
func (m message) wantAnswer() {
	binary.LittleEndian.PutUint32(m[wireHeaderLen:], uint32(m.flags()&^wiremessage.MoreToCome))
}

// command is what the proxy needs to know of a request.
type command struct {
	name       string // findAndModify, update, ...
	db         string
	collection string // empty when the command is not about one
	body       bsoncore.Document
	// sequences are the document sequences: the statements of insert, update and delete.
	sequences map[string][]bsoncore.Document
}

func (m message) command() (command, bool) {
	var c command
	if !m.isMsg() {
		return c, false
	}
	flags, rest, _ := wiremessage.ReadMsgFlags(m[wireHeaderLen:])
	if flags&wiremessage.ChecksumPresent != 0 {
		if len(rest) < 4 {
			return c, false
		}
		rest = rest[:len(rest)-4]
	}
	for len(rest) > 0 {
		kind, r, ok := wiremessage.ReadMsgSectionType(rest)
		if !ok {
			return c, false
		}
		switch kind {
		case wiremessage.SingleDocument:
			c.body, rest, ok = wiremessage.ReadMsgSectionSingleDocument(r)
		case wiremessage.DocumentSequence:
			var id string
			var docs []bsoncore.Document
			id, docs, rest, ok = wiremessage.ReadMsgSectionDocumentSequence(r)
			if c.sequences == nil {
				c.sequences = make(map[string][]bsoncore.Document)
			}
			c.sequences[id] = docs
		default:
			ok = false
		}
		if !ok {
			return c, false
		}
	}
	first, err := c.body.IndexErr(0)
	if err != nil {
		return c, false
	}
	c.name = first.Key()
	c.collection, _ = first.Value().StringValueOK()
	c.db, _ = c.body.Lookup("$db").StringValueOK()
	return c, true
}

func newMessage(requestID, responseTo int32, doc bsoncore.Document) message {
	i, m := wiremessage.AppendHeaderStart(nil, requestID, responseTo, wiremessage.OpMsg)
	m = wiremessage.AppendMsgFlags(m, 0)
	m = wiremessage.AppendMsgSectionType(m, wiremessage.SingleDocument)
	m = append(m, doc...)
	return bsoncore.UpdateLength(m, i, int32(len(m)))
}

// marshalMessage is newMessage for a document that is not encoded yet.
func marshalMessage(responseTo int32, doc any) (message, error) {
	body, err := bson.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encoding a message: %w", err)
	}
	return newMessage(wiremessage.NextRequestID(), responseTo, body), nil
}

func errorMessage(responseTo, code int32, text string) message {
	return newMessage(wiremessage.NextRequestID(), responseTo, bsoncore.NewDocumentBuilder().
		AppendDouble("ok", 0).
		AppendString("errmsg", text).
		AppendInt32("code", code).
		Build())
}

func (c command) message(requestID int32) message {
	m := newMessage(requestID, 0, c.body)
	for name, docs := range c.sequences {
		m = wiremessage.AppendMsgSectionType(m, wiremessage.DocumentSequence)
		i := int32(len(m))
		_, m = bsoncore.ReserveLength(m)
		m = append(append(m, name...), 0)
		for _, doc := range docs {
			m = append(m, doc...)
		}
		m = bsoncore.UpdateLength(m, i, int32(len(m))-i)
	}
	return bsoncore.UpdateLength(m, 0, int32(len(m)))
}

// firstBatch returns the first documents of the cursor in an answer, or false if there is none.
func (m message) firstBatch() ([]bsoncore.Value, bool) {
	reply, ok := m.command()
	if !ok {
		return nil, false
	}
	batch, ok := reply.body.Lookup("cursor", "firstBatch").ArrayOK()
	if !ok {
		return nil, false
	}
	values, err := batch.Values()
	return values, err == nil
}
