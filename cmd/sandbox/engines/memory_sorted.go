package engines

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tidwall/btree"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// memorySorted is an index on several fields: the documents in the order of what they hold in these. It ends with the
// id, so that no two documents are equal in it.
type memorySorted struct {
	fields []string
	number int // of the index in its collection, and of its keys in a document
	docs   *btree.BTreeG[*memoryDoc]
}

func newMemorySorted(fields []string, number int) *memorySorted {
	if !slices.Contains(fields, "_id") {
		fields = append(fields, "_id")
	}
	return &memorySorted{fields: fields, number: number, docs: btree.NewBTreeGOptions(func(a, b *memoryDoc) bool {
		return a.keys[number] < b.keys[number]
	}, btree.Options{NoLocks: true})}
}

// key returns what a document holds in the fields, in a form whose order is that of MongoDB.
func (s *memorySorted) key(doc bsoncore.Document) (string, error) {
	var key []byte
	for _, field := range s.fields {
		values := fieldValues(doc, field)
		switch {
		case len(values) == 0:
			key = appendSortKey(key, bsoncore.Value{Type: bsoncore.TypeNull})
		case values[0].Type == bsoncore.TypeArray:
			return "", fmt.Errorf("%s holds a list, for which an index on several fields has no order", field)
		default:
			key = appendSortKey(key, values[0])
		}
	}
	return string(key), nil
}

// afterAll is behind every sort key that begins with what stands before it.
const afterAll = "\xff"

// appendSortKey appends a value so that the bytes of values have the order of the values, and no value begins with
// another. Values of one type stand together, in MongoDB's order of types.
func appendSortKey(key []byte, v bsoncore.Value) []byte {
	key = append(key, typeOrder(v))
	switch {
	case v.IsNumber():
		bits := math.Float64bits(number(v))
		if bits>>63 == 1 {
			bits = ^bits
		} else {
			bits |= 1 << 63
		}
		return binary.BigEndian.AppendUint64(key, bits)
	case v.Type == bsoncore.TypeDateTime:
		return binary.BigEndian.AppendUint64(key, uint64(v.DateTime())^1<<63)
	case v.Type == bsoncore.TypeNull:
		return key
	case v.Type == bsoncore.TypeString:
		return appendSortBytes(key, []byte(v.StringValue()))
	}
	return appendSortBytes(key, v.Data)
}

// appendSortBytes appends bytes and an end that is before all that may follow in longer ones.
func appendSortBytes(key, b []byte) []byte {
	return append(append(key, bytes.ReplaceAll(b, []byte{0}, []byte{0, 0xff})...), 0, 1)
}

func typeOrder(v bsoncore.Value) byte {
	if v.IsNumber() {
		return 2
	}
	switch v.Type {
	case bsoncore.TypeNull:
		return 1
	case bsoncore.TypeString:
		return 3
	case bsoncore.TypeEmbeddedDocument:
		return 4
	case bsoncore.TypeBinary:
		return 6
	case bsoncore.TypeObjectID:
		return 7
	case bsoncore.TypeBoolean:
		return 8
	case bsoncore.TypeDateTime:
		return 9
	}
	return 10
}

// memoryScan is a walk through a sorted index.
type memoryScan struct {
	in      *memorySorted
	ranges  []memoryRange // of keys
	equal   int           // how many of the first fields have one value
	ranged  bool          // the next one is bounded
	inOrder bool          // the documents come in the order that was asked for
}

type memoryRange struct{ from, before string }

// better reports whether a scan is to be preferred.
func (s memoryScan) better(than memoryScan) bool {
	for _, by := range []int{rank(s.inOrder) - rank(than.inOrder), s.equal - than.equal, rank(s.ranged) - rank(than.ranged)} {
		if by != 0 {
			return by > 0
		}
	}
	return false
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// scan returns the walk by which an index finds what a filter selects.
func (s *memorySorted) scan(filter, order []bsoncore.Element) (found memoryScan, useful bool) {
	found.in = s
	var prefix []byte
	for found.equal < len(s.fields) {
		v, ok := equalInFilter(filter, s.fields[found.equal])
		if !ok {
			break
		}
		prefix = appendSortKey(prefix, v)
		found.equal++
	}
	rest := s.fields[found.equal:]
	found.inOrder = len(order) > 0 && len(order) <= len(rest)
	for i, by := range order {
		found.inOrder = found.inOrder && by.Key() == rest[i] && by.Value().AsInt64() == 1
	}
	found.ranges = []memoryRange{{string(prefix), string(prefix) + afterAll}}
	if len(rest) > 0 {
		found.bound(filter, prefix, rest[0])
	}
	return found, found.inOrder || found.ranged || found.equal > 0
}

// bound narrows the ranges by the operators on a field.
func (s *memoryScan) bound(filter []bsoncore.Element, prefix []byte, field string) {
	all := &s.ranges[0]
	var without []string
	for _, condition := range filter {
		operators, ok := condition.Value().DocumentOK()
		if condition.Key() != field || !ok {
			continue
		}
		elements, _ := operators.Elements() // matching reads them again, and fails
		for _, e := range elements {
			at := string(appendSortKey(slices.Clone(prefix), e.Value()))
			ofType := string(prefix) + string([]byte{typeOrder(e.Value())})
			switch e.Key() {
			case "$gt":
				all.narrow(at+afterAll, ofType+afterAll)
			case "$gte":
				all.narrow(at, ofType+afterAll)
			case "$lt":
				all.narrow(ofType, at)
			case "$lte":
				all.narrow(ofType, at+afterAll)
			case "$nin":
				list, _ := e.Value().ArrayOK()
				values, _ := list.Values()
				for _, v := range values {
					without = append(without, string(appendSortKey(slices.Clone(prefix), v)))
				}
				continue
			default:
				continue
			}
			s.ranged = true
		}
	}
	slices.Sort(without)
	for _, key := range without {
		last := &s.ranges[len(s.ranges)-1]
		next := memoryRange{key + afterAll, last.before}
		last.before = min(last.before, key)
		next.from = max(next.from, last.from)
		s.ranges = append(s.ranges, next)
	}
}

func (r *memoryRange) narrow(from, before string) {
	r.from, r.before = max(r.from, from), min(r.before, before)
}

// equalInFilter returns the value to which a filter demands that a field is equal.
func equalInFilter(filter []bsoncore.Element, field string) (bsoncore.Value, bool) {
	for _, condition := range filter {
		if condition.Key() != field {
			continue
		}
		if condition.Value().Type == bsoncore.TypeNull {
			return condition.Value(), true
		}
		if values, ok := equalTo(condition.Value()); ok && len(values) == 1 {
			return values[0], true
		}
	}
	return bsoncore.Value{}, false
}

// each calls do with each document of the ranges until it returns false.
func (s memoryScan) each(do func(*memoryDoc) bool) {
	from := &memoryDoc{keys: make([]string, s.in.number+1)}
	going := true
	for _, r := range s.ranges {
		from.keys[s.in.number] = r.from
		s.in.docs.Ascend(from, func(d *memoryDoc) bool {
			if d.keys[s.in.number] >= r.before {
				return false
			}
			going = do(d)
			return going
		})
		if !going {
			return
		}
	}
}

// scan returns the best walk through an index; none: there is no useful one.
func (c *memoryCollection) scan(filter, order bsoncore.Document) (best memoryScan, found bool, err error) {
	conditions, err := filter.Elements()
	if err != nil {
		return best, false, err
	}
	var by []bsoncore.Element
	if order != nil {
		if by, err = order.Elements(); err != nil {
			return best, false, err
		}
	}
	for _, s := range c.sorted {
		if scan, useful := s.scan(conditions, by); useful && (!found || scan.better(best)) {
			best, found = scan, true
		}
	}
	return best, found, nil
}

func fieldsOf(keys []bsoncore.Element) (fields []string) {
	for _, k := range keys {
		fields = append(fields, strings.Clone(k.Key()))
	}
	return fields
}
