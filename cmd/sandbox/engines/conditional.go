package engines

import (
	"crypto/rand"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// On SQLite, FerretDB uses an index for a query by nothing but an id, and reads the whole collection if there are
// further conditions, as in a compare-and-set: most of a second for 20,000 documents of 2 KB. The proxy splits such a
// write: it asks whether the document with the id meets the conditions, which is quick, and then writes to the document
// with the id, or to none. Nothing changes in between, because writes run alone.

// conditional is a write to the one document with an id, if it meets conditions.
type conditional struct {
	command
	id         string
	conditions bson.D
}

// statementLists name the lists of statements by command.
var statementLists = map[string]string{"update": "updates", "delete": "deletes"}

// conditional parses a command that is a conditional write, without anything unusual.
func (c command) conditional() (conditional, bool) {
	statement, key, ok := c.statement()
	if !ok || !usual(c.body) || !usual(statement) {
		return conditional{}, false
	}
	query, ok := statement.Lookup(key).DocumentOK()
	if !ok {
		return conditional{}, false
	}
	id, others, ok := byID(query)
	return conditional{command: c, id: id, conditions: others}, ok && len(others) > 0
}

// statement returns the one statement of a write, and the name of the query in it.
func (c command) statement() (statement bsoncore.Document, key string, ok bool) {
	if c.name == "findAndModify" {
		return c.body, "query", true
	}
	list := c.sequences[statementLists[c.name]]
	if len(list) != 1 || len(c.sequences) != 1 {
		return nil, "", false
	}
	return list[0], "q", true
}

// usualFields are those with which a write means the same after it is split.
var usualFields = []string{
	"findAndModify", "query", "update", "remove", "new", "sort",
	"updates", "q", "u", "multi", "upsert", "delete", "deletes", "limit", "ordered",
	"$db", "lsid", "$clusterTime", "$readPreference", "writeConcern", "comment", "maxTimeMS", "bypassDocumentValidation",
}

// usual reports whether a command or statement has usual fields only. An upsert, which makes a document of the
// conditions, is not usual.
func usual(doc bsoncore.Document) bool {
	elements, err := doc.Elements()
	return err == nil && !slices.ContainsFunc(elements, func(e bsoncore.Element) bool {
		upsert, isBool := e.Value().BooleanOK()
		return !slices.Contains(usualFields, e.Key()) || e.Key() == "upsert" && (upsert || !isBool)
	})
}

// probe makes the request that finds the document if it meets the conditions. FerretDB takes the first stage to the
// index and filters what comes from there.
func (w conditional) probe() (message, error) {
	return marshalMessage(0, bson.D{
		{Key: "aggregate", Value: w.collection},
		{Key: "pipeline", Value: bson.A{
			bson.D{{Key: "$match", Value: bson.D{{Key: "_id", Value: w.id}}}},
			bson.D{{Key: "$match", Value: w.conditions}},
			bson.D{{Key: "$project", Value: bson.D{{Key: "_id", Value: 1}}}},
		}},
		{Key: "cursor", Value: bson.D{}},
		{Key: "$db", Value: w.db},
	})
}

// split makes the request that writes to the document with the id, or to none if it was not found.
func (w conditional) split(requestID int32, found bool) (message, error) {
	id := w.id
	if !found {
		id = rand.Text() // nobody's
	}
	query, err := bson.Marshal(bson.D{{Key: "_id", Value: id}})
	if err != nil {
		return nil, err
	}
	statement, key, _ := w.statement()
	changed, err := replace(statement, key, query)
	if err != nil {
		return nil, err
	}
	list, listed := statementLists[w.name]
	if !listed {
		return newMessage(requestID, 0, changed), nil
	}
	w.sequences = map[string][]bsoncore.Document{list: {changed}}
	return w.message(requestID), nil
}

func replace(doc bsoncore.Document, key string, value bsoncore.Document) (bsoncore.Document, error) {
	elements, err := doc.Elements()
	if err != nil {
		return nil, err
	}
	i, out := bsoncore.AppendDocumentStart(nil)
	for _, e := range elements {
		if e.Key() == key {
			out = bsoncore.AppendDocumentElement(out, key, value)
		} else {
			out = append(out, e...)
		}
	}
	return bsoncore.AppendDocumentEnd(out, i)
}
