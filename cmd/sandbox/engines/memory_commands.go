package engines

import (
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// memoryCommands are the commands that Memory knows. They run with its lock.
var memoryCommands = map[string]func(*Memory, command) (bson.D, error){
	"hello":         func(*Memory, command) (bson.D, error) { return hello(), nil },
	"isMaster":      func(*Memory, command) (bson.D, error) { return hello(), nil },
	"ismaster":      func(*Memory, command) (bson.D, error) { return hello(), nil },
	"ping":          func(*Memory, command) (bson.D, error) { return bson.D{}, nil },
	"endSessions":   func(*Memory, command) (bson.D, error) { return bson.D{}, nil },
	"buildInfo":     func(*Memory, command) (bson.D, error) { return bson.D{{Key: "version", Value: "7.0.0"}}, nil },
	"find":          (*Memory).doFind,
	"insert":        (*Memory).doInsert,
	"update":        (*Memory).doUpdate,
	"delete":        (*Memory).doDelete,
	"findAndModify": (*Memory).doFindAndModify,
	"listIndexes": func(m *Memory, cmd command) (bson.D, error) {
		return batchOf(cmd, m.collection(cmd).specs), nil
	},
	"createIndexes": func(m *Memory, cmd command) (bson.D, error) {
		specs, err := cmd.body.Lookup("indexes").Array().Values()
		for _, spec := range specs {
			err = errors.Join(err, m.collection(cmd).addIndex(spec.Document()))
		}
		return bson.D{}, err
	},
	"dropDatabase": func(m *Memory, cmd command) (bson.D, error) {
		for name := range m.collections {
			if name.db == cmd.db {
				delete(m.collections, name)
			}
		}
		return bson.D{}, nil
	},
}

func batchOf[D ~[]byte](cmd command, docs []D) bson.D {
	batch := make(bson.A, len(docs))
	for i, d := range docs {
		batch[i] = bson.Raw(d)
	}
	return bson.D{{Key: "cursor", Value: bson.D{{Key: "firstBatch", Value: batch}, {Key: "id", Value: int64(0)}, {Key: "ns", Value: cmd.db + "." + cmd.collection}}}}
}

// doFind answers with whole documents, all in one batch: projections only make them smaller.
func (m *Memory) doFind(cmd command) (bson.D, error) {
	filter, _ := cmd.body.Lookup("filter").DocumentOK()
	order, _ := cmd.body.Lookup("sort").DocumentOK()
	skip, _ := cmd.body.Lookup("skip").AsInt64OK()
	limit, _ := cmd.body.Lookup("limit").AsInt64OK()
	enough := 0
	if limit > 0 {
		enough = int(skip + limit)
	}
	found, err := m.collection(cmd).find(filter, order, enough)
	if err != nil {
		return nil, err
	}
	found = found[min(int(skip), len(found)):]
	if limit > 0 {
		found = found[:min(int(limit), len(found))]
	}
	docs := make([]bsoncore.Document, len(found))
	for i, d := range found {
		docs[i] = d.Document
	}
	return batchOf(cmd, docs), nil
}

// sortDocs sorts by fields that have one type each; missing ones come first.
func sortDocs(docs []*memoryDoc, order bsoncore.Document) error {
	if order == nil {
		return nil
	}
	fields, err := order.Elements()
	if err != nil {
		return err
	}
	slices.SortFunc(docs, func(a, b *memoryDoc) int {
		for _, f := range fields {
			x, y := fieldValues(a.Document, f.Key()), fieldValues(b.Document, f.Key())
			by := len(x) - len(y)
			if len(x) == 1 && len(y) == 1 {
				by, _ = compareValues(x[0], y[0])
			}
			if by != 0 {
				return by * int(f.Value().AsInt64())
			}
		}
		return 0
	})
	return nil
}

// statements returns the documents of a command, which the driver sends beside its body or in it.
func (c command) statements(name string) ([]bsoncore.Document, error) {
	if docs, ok := c.sequences[name]; ok {
		return docs, nil
	}
	list, ok := c.body.Lookup(name).ArrayOK()
	if !ok {
		return nil, fmt.Errorf("%s has no %s", c.name, name)
	}
	values, err := list.Values()
	docs := make([]bsoncore.Document, len(values))
	for i, v := range values {
		docs[i] = v.Document()
	}
	return docs, err
}

// statementCount counts as [MemoryCount] does; 0: the command is none of documents.
func (c command) statementCount() int {
	lists := map[string]string{"insert": "documents", "update": "updates", "delete": "deletes"}
	switch c.name {
	case "insert", "update", "delete":
		docs, _ := c.statements(lists[c.name]) // fails again in the command
		return len(docs)
	case "find":
		filter, _ := c.body.Lookup("filter").DocumentOK()
		conditions, _ := filter.Elements()
		for _, condition := range conditions {
			if values, ok := equalTo(condition.Value()); ok {
				return len(values)
			}
		}
		return 1
	case "findAndModify":
		return 1
	}
	return 0
}

var errTaken = errors.New("the id is taken")

func (m *Memory) doInsert(cmd command) (bson.D, error) {
	docs, err := cmd.statements("documents")
	if err != nil {
		return nil, err
	}
	c, failed := m.collection(cmd), bson.A{}
	for i, doc := range docs {
		switch err := c.insert(doc); {
		case errors.Is(err, errTaken):
			failed = append(failed, taken(i))
		case err != nil:
			return nil, err
		}
	}
	return written(len(docs)-len(failed), failed), nil
}

func taken(i int) bson.D {
	return bson.D{{Key: "index", Value: int32(i)}, {Key: "code", Value: int32(11000)}, {Key: "errmsg", Value: errTaken.Error()}}
}

func written(n int, failed bson.A) bson.D {
	reply := bson.D{{Key: "n", Value: int32(n)}}
	if len(failed) > 0 {
		reply = append(reply, bson.E{Key: "writeErrors", Value: failed})
	}
	return reply
}

func (c *memoryCollection) insert(doc bsoncore.Document) error {
	id, err := doc.LookupErr("_id")
	if err != nil {
		return err
	}
	if c.docs[valueKey(id)] != nil {
		return errTaken
	}
	return c.put(nil, doc)
}

func (m *Memory) doUpdate(cmd command) (bson.D, error) {
	statements, err := cmd.statements("updates")
	if err != nil {
		return nil, err
	}
	c, n, upserted := m.collection(cmd), 0, bson.A{}
	for i, s := range statements {
		many, _ := s.Lookup("multi").BooleanOK()
		upsert, _ := s.Lookup("upsert").BooleanOK()
		found, _, made, err := c.change(s.Lookup("q").Document(), s.Lookup("u"), many, upsert, nil)
		if err != nil {
			return nil, err
		}
		if n += len(found); made != nil {
			n++
			id := made.Lookup("_id")
			upserted = append(upserted, bson.D{{Key: "index", Value: int32(i)}, {Key: "_id", Value: bson.RawValue{Type: bson.Type(id.Type), Value: id.Data}}})
		}
	}
	reply := append(written(n, nil), bson.E{Key: "nModified", Value: int32(n - len(upserted))})
	if len(upserted) > 0 {
		reply = append(reply, bson.E{Key: "upserted", Value: upserted})
	}
	return reply, nil
}

// change updates what a filter selects, and returns it as it was and as it is, or what an upsert made.
func (c *memoryCollection) change(filter bsoncore.Document, update bsoncore.Value, many, upsert bool, order bsoncore.Document) (before, after []bsoncore.Document, made bsoncore.Document, err error) {
	u, ok := update.DocumentOK()
	if !ok {
		return nil, nil, nil, errors.New("an update is no document")
	}
	limit := 1
	if many {
		limit = 0
	}
	found, err := c.find(filter, order, limit)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(found) == 0 && upsert {
		if made, err = updated(equalities(filter), u, true); err == nil {
			err = c.insert(made)
		}
		return nil, nil, made, err
	}
	if !many {
		found = found[:min(1, len(found))]
	}
	for _, d := range found {
		next, err := updated(d.Document, u, false)
		if err != nil {
			return nil, nil, nil, err
		}
		before, after = append(before, d.Document), append(after, next)
		if err := c.put(d, next); err != nil {
			return nil, nil, nil, err
		}
	}
	return before, after, nil, nil
}

// equalities returns the fields that a filter gives a value.
func equalities(filter bsoncore.Document) bsoncore.Document {
	doc := bson.D{}
	elements, _ := filter.Elements() // find has read them
	for _, e := range elements {
		if values, ok := equalTo(e.Value()); ok && len(values) == 1 && e.Value().Type != bsoncore.TypeEmbeddedDocument {
			doc = append(doc, bson.E{Key: e.Key(), Value: bson.RawValue{Type: bson.Type(values[0].Type), Value: values[0].Data}})
		}
	}
	out, _ := bson.Marshal(doc) // of encoded values
	return out
}

func (m *Memory) doDelete(cmd command) (bson.D, error) {
	statements, err := cmd.statements("deletes")
	if err != nil {
		return nil, err
	}
	c, n := m.collection(cmd), 0
	for _, s := range statements {
		found, err := c.find(s.Lookup("q").Document(), nil, int(s.Lookup("limit").AsInt64())) // 0 or 1
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			c.remove(d)
			n++
		}
	}
	return written(n, nil), nil
}

func (m *Memory) doFindAndModify(cmd command) (bson.D, error) {
	if _, err := cmd.body.LookupErr("update"); err != nil {
		return nil, errors.New("findAndModify only updates")
	}
	filter, _ := cmd.body.Lookup("query").DocumentOK()
	order, _ := cmd.body.Lookup("sort").DocumentOK()
	upsert, _ := cmd.body.Lookup("upsert").BooleanOK()
	wantsNew, _ := cmd.body.Lookup("new").BooleanOK()
	before, after, made, err := m.collection(cmd).change(filter, cmd.body.Lookup("update"), false, upsert, order)
	if err != nil {
		return nil, err
	}
	var value any
	switch {
	case wantsNew && made != nil:
		value = bson.Raw(made)
	case wantsNew && len(after) > 0:
		value = bson.Raw(after[0])
	case !wantsNew && len(before) > 0:
		value = bson.Raw(before[0])
	}
	return bson.D{{Key: "value", Value: value}, {Key: "lastErrorObject", Value: bson.D{{Key: "n", Value: int32(len(before))}, {Key: "updatedExisting", Value: len(before) > 0}}}}, nil
}
