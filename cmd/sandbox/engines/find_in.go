package engines

import (
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"
)

// FerretDB uses an index to find documents by one value of a field, but not by one of several values ($in). The proxy asks
// for each value by itself and answers with all documents at once, in a cursor that is at its end. As on MongoDB, what is
// written meanwhile may or may not be seen.

// findIn is a find by nothing but one of several strings in a field.
type findIn struct {
	command
	field  string
	values []string
}

const (
	maxFindInBatch = 1_000   // documents with one value
	maxFindInBytes = 4 << 20 // of the answer
)

// findInFields are those with which a find means the same after it is split.
var findInFields = []string{
	"find", "filter", "projection", "$db", "lsid", "$clusterTime", "$readPreference", "readConcern", "comment", "maxTimeMS",
}

// findIn parses a command that is a find by several values, without anything unusual.
func (c command) findIn() (findIn, bool) {
	f := findIn{command: c}
	elements, err := c.body.Elements()
	if err != nil || c.name != "find" || len(c.sequences) > 0 {
		return f, false
	}
	for _, e := range elements {
		if !slices.Contains(findInFields, e.Key()) || e.Key() == "projection" && !plain(e.Value()) {
			return f, false
		}
	}
	var filter map[string]struct {
		In   []any          `bson:"$in"`
		More map[string]any `bson:",inline"`
	}
	raw, ok := c.body.Lookup("filter").DocumentOK()
	if !ok || bson.Unmarshal(raw, &filter) != nil || len(filter) != 1 {
		return f, false
	}
	for field, is := range filter {
		for _, v := range is.In {
			text, ok := v.(string)
			if !ok {
				return f, false
			}
			f.values = append(f.values, text)
		}
		f.field, ok = field, is.In != nil && len(is.More) == 0
	}
	slices.Sort(f.values)
	f.values = slices.Compact(f.values)
	return f, ok && !strings.ContainsAny(f.field, "$.")
}

// plain reports whether a projection only includes or excludes fields.
func plain(projection bsoncore.Value) bool {
	doc, ok := projection.DocumentOK()
	if !ok {
		return false
	}
	elements, err := doc.Elements()
	return err == nil && !slices.ContainsFunc(elements, func(e bsoncore.Element) bool {
		return strings.Contains(e.Key(), "$") || !e.Value().IsNumber() && e.Value().Type != bsoncore.TypeBoolean
	})
}

// part makes the request for the documents with one value.
func (f findIn) part(value string) (message, error) {
	filter, err := bson.Marshal(bson.D{{Key: f.field, Value: value}})
	if err != nil {
		return nil, err
	}
	body, err := replace(f.body, "filter", filter)
	if err != nil {
		return nil, err
	}
	// One more than wanted shows that there are too many; a single batch leaves no cursor open then.
	body = bsoncore.AppendInt32Element(body[:len(body)-1], "batchSize", maxFindInBatch+1)
	body = bsoncore.AppendBooleanElement(body, "singleBatch", true)
	if body, err = bsoncore.AppendDocumentEnd(body, 0); err != nil {
		return nil, err
	}
	return newMessage(wiremessage.NextRequestID(), 0, body), nil
}

// findIn carries out a find value by value. It returns nil if the find has to be passed on as it is.
func (s *session) findIn(requestID int32, f findIn) (message, error) {
	seen, size, found := make(map[string]bool), 0, bson.A{}
	for _, value := range f.values {
		request, err := f.part(value)
		if err != nil {
			return nil, err
		}
		answer, err := s.exchange(request)
		if err != nil {
			return nil, err
		}
		batch, ok := answer.firstBatch()
		if !ok || len(batch) > maxFindInBatch {
			return nil, nil
		}
		for _, v := range batch {
			id, err := v.Document().LookupErr("_id")
			if err != nil {
				return nil, nil //nolint:nilerr // projected away, and documents cannot be told apart
			}
			if key := string(append([]byte{byte(id.Type)}, id.Data...)); !seen[key] {
				seen[key] = true
				found = append(found, bson.Raw(v.Data))
				size += len(v.Data)
			}
		}
		if size > maxFindInBytes {
			return nil, nil
		}
	}
	return marshalMessage(requestID, bson.D{
		{Key: "cursor", Value: bson.D{
			{Key: "firstBatch", Value: found}, {Key: "id", Value: int64(0)}, {Key: "ns", Value: f.db + "." + f.collection},
		}},
		{Key: "ok", Value: 1.0},
	})
}
