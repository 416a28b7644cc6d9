package engines

import (
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// updated returns what an update makes of a document: a replacement, or operators. created: there was no such document,
// and doc is what the filter says of it.
func updated(doc, update bsoncore.Document, created bool) (bsoncore.Document, error) {
	first, err := update.IndexErr(0)
	if err != nil || !strings.HasPrefix(first.Key(), "$") {
		return replaced(doc, update)
	}
	var d, operators bson.D
	if err := bson.Unmarshal(doc, &d); err != nil {
		return nil, err
	}
	if err := bson.Unmarshal(update, &operators); err != nil {
		return nil, err
	}
	for _, operator := range operators {
		fields, ok := operator.Value.(bson.D)
		if !ok {
			return nil, fmt.Errorf("%s needs a document", operator.Key)
		}
		for _, f := range fields {
			path := strings.Split(f.Key, ".")
			former := lookUp(d, path)
			switch operator.Key {
			case "$set":
				d = setField(d, path, f.Value)
			case "$setOnInsert":
				if created {
					d = setField(d, path, f.Value)
				}
			case "$unset":
				d = unsetField(d, path)
			case "$inc":
				d = setField(d, path, sum(former, f.Value))
			case "$min", "$max":
				less, err := isLess(f.Value, former)
				if err != nil {
					return nil, err
				}
				if former == nil || less == (operator.Key == "$min") {
					d = setField(d, path, f.Value)
				}
			default:
				return nil, fmt.Errorf("unknown operator %s", operator.Key)
			}
		}
	}
	return bson.Marshal(d)
}

// replaced returns a replacement with the id of the document.
func replaced(doc, replacement bsoncore.Document) (bsoncore.Document, error) {
	if _, err := replacement.LookupErr("_id"); err == nil {
		return replacement, nil
	}
	id, err := doc.LookupErr("_id")
	if err != nil {
		return replacement, nil //nolint:nilerr // there is no document yet, and the replacement has no id, which insert refuses
	}
	var rest bson.D
	if err := bson.Unmarshal(replacement, &rest); err != nil {
		return nil, err
	}
	return bson.Marshal(append(bson.D{{Key: "_id", Value: bson.RawValue{Type: bson.Type(id.Type), Value: id.Data}}}, rest...))
}

func lookUp(d bson.D, path []string) any {
	for _, e := range d {
		if e.Key != path[0] {
			continue
		}
		if len(path) == 1 {
			return e.Value
		}
		in, _ := e.Value.(bson.D)
		return lookUp(in, path[1:])
	}
	return nil
}

func setField(d bson.D, path []string, v any) bson.D {
	for i := range d {
		if d[i].Key == path[0] {
			if len(path) > 1 {
				in, _ := d[i].Value.(bson.D)
				v = setField(in, path[1:], v)
			}
			d[i].Value = v
			return d
		}
	}
	if len(path) > 1 {
		v = setField(nil, path[1:], v)
	}
	return append(d, bson.E{Key: path[0], Value: v})
}

func unsetField(d bson.D, path []string) bson.D {
	for i := range d {
		if d[i].Key != path[0] {
			continue
		}
		if len(path) == 1 {
			return append(d[:i:i], d[i+1:]...)
		}
		if in, ok := d[i].Value.(bson.D); ok {
			d[i].Value = unsetField(in, path[1:])
		}
	}
	return d
}

// sum adds whole numbers, of the wider of their types.
func sum(a, b any) any {
	x, _ := a.(int32)
	y, ok := b.(int32)
	if _, wide := a.(int64); ok && !wide {
		return x + y
	}
	return wide(a) + wide(b)
}

func wide(v any) int64 {
	switch v := v.(type) {
	case int32:
		return int64(v)
	case int64:
		return v
	}
	return 0
}

func isLess(a, b any) (bool, error) {
	if b == nil {
		return false, nil
	}
	doc, err := bson.Marshal(bson.D{{Key: "a", Value: a}, {Key: "b", Value: b}})
	if err != nil {
		return false, err
	}
	order, ordered := compareValues(bsoncore.Document(doc).Lookup("a"), bsoncore.Document(doc).Lookup("b"))
	if !ordered {
		return false, fmt.Errorf("a %T and a %T have no order", a, b)
	}
	return order < 0, nil
}
