package engines

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// Memory stands for a MongoDB that answers at once, so that what is measured against it is the client's own cost. It
// speaks the wire protocol and keeps documents in memory, with as many commands and operators as a worker uses; it answers
// all others with an error. Each command is atomic. It is safe for concurrent use.
type Memory struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu          sync.Mutex
	clients     map[net.Conn]struct{} // nil once stopped
	collections map[namespace]*memoryCollection
	done        MemoryCount
}

// MemoryCount is what was done since the start. Many statements may share a command.
type MemoryCount struct {
	Commands   int // that look for documents or write them
	Statements int // documents that were written, and values that documents were looked for by
	Examined   int // documents that were looked at to find others or these
}

// Count returns what was done so far.
func (m *Memory) Count() MemoryCount {
	m.mu.Lock()
	defer m.mu.Unlock()
	done := m.done
	for _, c := range m.collections {
		done.Examined += c.examined
	}
	return done
}

// memoryCollection finds documents by what they hold in some fields, and otherwise looks at all.
type memoryCollection struct {
	docs     map[string]*memoryDoc            // by id
	indexes  map[string]map[string]memoryDocs // by field, and value in it
	sorted   []*memorySorted                  // those on several fields
	specs    []bsoncore.Document              // of all indexes, to list
	examined int
}

type memoryDoc struct {
	bsoncore.Document
	keys []string // in the sorted indexes
}

type memoryDocs map[*memoryDoc]struct{}

func StartMemory() (*Memory, error) {
	listener, err := net.Listen("tcp", address(0))
	if err != nil {
		return nil, fmt.Errorf("starting a database in memory: %w", err)
	}
	m := &Memory{listener: listener, clients: map[net.Conn]struct{}{}, collections: map[namespace]*memoryCollection{}}
	m.wg.Go(m.accept)
	return m, nil
}

// URI returns the address for clients: a direct connection without retries of writes, since there is no replica set.
func (m *Memory) URI() string {
	q := url.Values{"directConnection": {"true"}, "retryWrites": {"false"}}
	return (&url.URL{Scheme: "mongodb", Host: m.listener.Addr().String(), Path: "/", RawQuery: q.Encode()}).String()
}

// Stop disconnects the clients and forgets the documents.
func (m *Memory) Stop() {
	m.listener.Close()
	m.mu.Lock()
	for c := range m.clients {
		c.Close()
	}
	m.clients, m.collections = nil, nil
	m.mu.Unlock()
	m.wg.Wait()
}

func (m *Memory) accept() {
	for {
		client, err := m.listener.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		if m.clients == nil {
			client.Close()
		} else {
			m.clients[client] = struct{}{}
			m.wg.Go(func() { m.serve(client) })
		}
		m.mu.Unlock()
	}
}

func (m *Memory) serve(client net.Conn) {
	defer func() {
		client.Close()
		m.mu.Lock()
		delete(m.clients, client)
		m.mu.Unlock()
	}()
	for {
		request, err := readMessage(client)
		if err != nil {
			return
		}
		answer := m.answer(request)
		if request.moreToCome() {
			continue
		}
		if _, err := client.Write(answer); err != nil {
			return
		}
	}
}

// maxMemoryAnswer is the size of documents that a message holds; there are no cursors.
const maxMemoryAnswer = maxWireLen - 1<<20

func (m *Memory) answer(request message) message {
	cmd, ok := request.command()
	if !request.isMsg() { // the first hello of a driver
		cmd, ok = command{name: "hello"}, true
	}
	if !ok {
		return errorMessage(request.requestID(), 9, "no command in the message") // FailedToParse
	}
	do, ok := memoryCommands[cmd.name]
	if !ok {
		return errorMessage(request.requestID(), 59, "no such command: "+cmd.name) // CommandNotFound
	}
	reply, err := m.carryOut(cmd, do)
	if err != nil {
		return errorMessage(request.requestID(), 2, err.Error()) // BadValue
	}
	answer, err := marshalMessage(request.requestID(), append(reply, bson.E{Key: "ok", Value: 1.0}))
	if err != nil || len(answer) > maxMemoryAnswer {
		return errorMessage(request.requestID(), 2, "the answer can't be encoded, or is too large")
	}
	return answer
}

func (m *Memory) carryOut(cmd command, do func(*Memory, command) (bson.D, error)) (bson.D, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clients == nil {
		return nil, errors.New("the database has been stopped")
	}
	if n := cmd.statementCount(); n > 0 {
		m.done.Commands++
		m.done.Statements += n
	}
	return do(m, cmd)
}

// collection returns a collection, which is made if there is none. The caller holds the lock.
func (m *Memory) collection(cmd command) *memoryCollection {
	name := namespace{cmd.db, cmd.collection}
	c := m.collections[name]
	if c == nil {
		c = &memoryCollection{docs: map[string]*memoryDoc{}, indexes: map[string]map[string]memoryDocs{}}
		_ = c.addIndex(bsoncore.NewDocumentBuilder().AppendInt32("v", 2).AppendDocument("key", bsoncore.NewDocumentBuilder().AppendInt32("_id", 1).Build()).AppendString("name", "_id_").Build())
		m.collections[name] = c
	}
	return c
}

// addIndex adds an index. One on one field finds documents by equal values, and that may be a list. One on several is
// sorted, all of it ascending. By "_id" all are found.
func (c *memoryCollection) addIndex(spec bsoncore.Document) error {
	if slices.ContainsFunc(c.specs, func(s bsoncore.Document) bool { return bytes.Equal(s.Lookup("key").Data, spec.Lookup("key").Data) }) {
		return nil
	}
	fields, err := spec.Lookup("key").Document().Elements()
	if err != nil {
		return err
	}
	c.specs = append(c.specs, slices.Clone(spec))
	switch {
	case len(fields) > 1:
		c.sorted = append(c.sorted, newMemorySorted(fieldsOf(fields), len(c.sorted)))
		for _, d := range c.docs { // all have keys of the other indexes already
			last := c.sorted[len(c.sorted)-1]
			key, err := last.key(d.Document)
			if err != nil {
				return err
			}
			d.keys = append(d.keys, key)
			last.docs.Set(d)
		}
	case fields[0].Key() != "_id":
		c.indexes[fields[0].Key()] = map[string]memoryDocs{}
		for _, d := range c.docs {
			c.index(d, fields[0].Key())
		}
	}
	return nil
}

// valueKey is equal for equal values of the types that ids and indexed fields have.
func valueKey(v bsoncore.Value) string { return string(append([]byte{byte(v.Type)}, v.Data...)) }

func (c *memoryCollection) index(d *memoryDoc, field string) {
	for _, v := range fieldValues(d.Document, field) {
		in := c.indexes[field]
		if in[valueKey(v)] == nil {
			in[valueKey(v)] = memoryDocs{}
		}
		in[valueKey(v)][d] = struct{}{}
	}
}

func (c *memoryCollection) unindex(d *memoryDoc, field string) {
	for _, v := range fieldValues(d.Document, field) {
		in := c.indexes[field]
		delete(in[valueKey(v)], d)
		if len(in[valueKey(v)]) == 0 {
			delete(in, valueKey(v))
		}
	}
}

// put stores a document, in place of what another (which may be nil) held.
func (c *memoryCollection) put(d *memoryDoc, doc bsoncore.Document) error {
	keys := make([]string, len(c.sorted))
	for i, s := range c.sorted {
		key, err := s.key(doc)
		if err != nil {
			return err
		}
		keys[i] = key
	}
	if d == nil {
		d = &memoryDoc{keys: make([]string, len(keys))}
	} else {
		for field := range c.indexes {
			c.unindex(d, field)
		}
		delete(c.docs, valueKey(d.Lookup("_id")))
	}
	for i, s := range c.sorted {
		if d.keys[i] != keys[i] {
			s.docs.Delete(d) // not there, if the document is new
			d.keys[i] = keys[i]
			s.docs.Set(d)
		}
	}
	d.Document = slices.Clone(doc)
	c.docs[valueKey(doc.Lookup("_id"))] = d
	for field := range c.indexes {
		c.index(d, field)
	}
	return nil
}

func (c *memoryCollection) remove(d *memoryDoc) {
	for field := range c.indexes {
		c.unindex(d, field)
	}
	for _, s := range c.sorted {
		s.docs.Delete(d)
	}
	delete(c.docs, valueKey(d.Lookup("_id")))
}

// find returns the documents that a filter selects, in an order (nil: in none). limit: how many are enough; 0: all.
func (c *memoryCollection) find(filter, order bsoncore.Document, limit int) (found []*memoryDoc, err error) {
	candidates, looked, err := c.candidates(filter)
	if err != nil {
		return nil, err
	}
	var inOrder bool
	examine := func(d *memoryDoc) bool {
		c.examined++
		ok, failed := matches(d.Document, filter)
		if ok {
			found = append(found, d)
		}
		err = failed
		return err == nil && (limit == 0 || len(found) < limit || order != nil && !inOrder)
	}
	switch scan, useful, failed := c.scan(filter, order); {
	case failed != nil:
		return nil, failed
	case !looked && useful:
		inOrder = scan.inOrder
		scan.each(examine)
	case !looked:
		candidates = maps.Values(c.docs)
		fallthrough
	default:
		for d := range candidates {
			if !examine(d) {
				break
			}
		}
	}
	if err != nil || inOrder {
		return found, err
	}
	return found, sortDocs(found, order)
}

// candidates returns the documents to which an equal id or an index on one field leads, if the filter names one.
func (c *memoryCollection) candidates(filter bsoncore.Document) (_ iter.Seq[*memoryDoc], looked bool, _ error) {
	conditions, err := filter.Elements()
	if err != nil {
		return nil, false, err
	}
	for _, condition := range conditions {
		index, indexed := c.indexes[condition.Key()]
		if !indexed && condition.Key() != "_id" {
			continue
		}
		values, ok := equalTo(condition.Value())
		if !ok {
			continue
		}
		found := memoryDocs{}
		for _, v := range values {
			if indexed {
				for d := range index[valueKey(v)] {
					found[d] = struct{}{}
				}
			} else if d := c.docs[valueKey(v)]; d != nil {
				found[d] = struct{}{}
			}
		}
		return maps.Keys(found), true, nil
	}
	return nil, false, nil
}

// equalTo returns the values to one of which a condition demands that a field is equal.
func equalTo(condition bsoncore.Value) ([]bsoncore.Value, bool) {
	if condition.Type == bsoncore.TypeNull {
		return nil, false // which a missing field is too
	}
	doc, ok := condition.DocumentOK()
	if !ok {
		return []bsoncore.Value{condition}, true
	}
	in, ok := doc.Lookup("$in").ArrayOK()
	if !ok {
		return nil, false
	}
	values, err := in.Values()
	return values, err == nil && !slices.ContainsFunc(values, func(v bsoncore.Value) bool { return v.Type == bsoncore.TypeNull })
}

func hello() bson.D {
	return bson.D{
		{Key: "isWritablePrimary", Value: true},
		{Key: "ismaster", Value: true},
		{Key: "helloOk", Value: true},
		{Key: "maxBsonObjectSize", Value: int32(16 << 20)},
		{Key: "maxMessageSizeBytes", Value: int32(maxWireLen)},
		{Key: "maxWriteBatchSize", Value: int32(100_000)},
		{Key: "localTime", Value: time.Now()},
		{Key: "minWireVersion", Value: int32(0)},
		{Key: "maxWireVersion", Value: int32(wireVersion)},
		{Key: "readOnly", Value: false},
	}
}

// wireVersion is that of MongoDB 7.0.
const wireVersion = 21
