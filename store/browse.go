package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/events"
)

// Order is the order in which grants are browsed. An index answers each.
type Order string

const (
	// InOrderOfBroker lists all grants, by state, broker and id.
	InOrderOfBroker Order = ""
	// InOrderOfDue lists grants with a next action, the soonest first.
	InOrderOfDue Order = "due"
	// InOrderOfFailure lists grants whose last refresh failed, the latest failure first.
	InOrderOfFailure Order = "failed"
)

// Selection selects grants to browse. Zero fields select all.
type Selection struct {
	Order Order
	State State
	// Broker is a broker type, in any case.
	Broker string
	// DueBefore selects what is due before a time; in the order of due times only.
	DueBefore time.Time
	// Error is the ErrorOf the last failure.
	Error string
	// After is the Next of the page before.
	After string
	// Limit bounds the grants of a page, and Reads how many are read to find them.
	Limit, Reads int
}

// Browsed is a page of grants, without their sealed tokens.
type Browsed struct {
	Grants []*Grant
	// Next is where the next page begins; empty: there is none.
	Next string
	// Read is how many grants were read.
	Read int
}

// ErrorOf returns the word for a series of failures: the errorType of Mesh, or the verdict on
// the last failure.
func ErrorOf(f *Failing) string {
	if f == nil {
		return ""
	}
	return cmp.Or(f.Type, f.Why)
}

// Browse returns a page of the grants that a selection selects. However few these are, it reads no
// more than Reads grants: a page may be empty though there is a next one.
func (s *Store) Browse(ctx context.Context, sel Selection) (Browsed, error) {
	walk := map[Order]func(context.Context, Selection) iter.Seq2[browsed, error]{
		InOrderOfBroker: s.walkBrokers, InOrderOfDue: s.walkDue, InOrderOfFailure: s.walkFailing,
	}[sel.Order]
	if walk == nil {
		return Browsed{}, ErrCursor
	}
	var page Browsed
	for at, err := range walk(ctx, sel) {
		if err != nil {
			return Browsed{}, wrap(err, "browsing grants")
		}
		// Of what follows nothing is known but that there is something.
		if len(page.Grants) == sel.Limit || page.Read == sel.Reads {
			return page, nil
		}
		page.Read++
		page.Next = at.place
		if at.grant != nil && sel.Selects(at.grant) {
			page.Grants = append(page.Grants, at.grant)
		}
	}
	page.Next = ""
	return page, nil
}

// browsed is a grant with the place behind it. A document that does not decode is nil: it
// does not hide the others.
type browsed struct {
	grant *Grant
	place string
}

// Selects reports whether a selection selects a grant.
func (sel Selection) Selects(g *Grant) bool {
	switch {
	case sel.Order == InOrderOfDue && (g.Due == nil || !sel.DueBefore.IsZero() && !g.Due.At.Before(sel.DueBefore)),
		sel.Order == InOrderOfFailure && g.Failing == nil:
		return false
	}
	return (sel.State == "" || g.State == sel.State) && (sel.Broker == "" || events.SameBroker(g.BrokerType, sel.Broker)) &&
		(sel.Error == "" || ErrorOf(g.Failing) == sel.Error)
}

// batch is how many grants are read at once.
func (sel Selection) batch() int64 {
	if sel.Error == "" && (sel.Order == InOrderOfBroker || sel.State == "" && sel.Broker == "") {
		return int64(min(sel.Limit, sel.Reads)) + 1
	}
	return int64(sel.Reads) + 1
}

// unbrowsed are the fields that nobody browses.
var unbrowsed = bson.D{{Key: "sealed", Value: 0}, {Key: "chain", Value: 0}, {Key: "fingerprints", Value: 0}, {Key: "outbox", Value: 0}}

// walk yields grants in the order of an index.
func (s *Store) walk(ctx context.Context, sel Selection, filter, sort bson.D, place func(bson.Raw) string, yield func(browsed, error) bool) bool {
	cursor, err := s.grants.Find(ctx, filter, options.Find().SetSort(sort).SetLimit(sel.batch()).SetBatchSize(int32(min(sel.batch(), 500))).SetProjection(unbrowsed))
	if err != nil {
		return yield(browsed{}, err)
	}
	defer cursor.Close(context.WithoutCancel(ctx))
	for cursor.Next(ctx) {
		at := browsed{place: place(cursor.Current)}
		if g := new(Grant); cursor.Decode(g) == nil {
			at.grant = g
		}
		if !yield(at, nil) {
			return false
		}
	}
	if err := cursor.Err(); err != nil {
		return yield(browsed{}, err)
	}
	return true
}

var allStates = []State{Active, MustAct, Expired, Revoked}

// walkBrokers walks each state by itself and, if one broker is wanted, each form of its name, so that
// one index leads to each grant and to no other.
func (s *Store) walkBrokers(ctx context.Context, sel Selection) iter.Seq2[browsed, error] {
	return func(yield func(browsed, error) bool) {
		begin, id, broker, err := brokerPlace(sel.After)
		if err != nil {
			yield(browsed{}, err)
			return
		}
		for i, state := range allStates {
			if i < begin || sel.State != "" && sel.State != state {
				continue
			}
			filters := []bson.D{{}}
			if sel.Broker != "" {
				if filters, err = s.formsOf(ctx, state, sel.Broker); err != nil {
					yield(browsed{}, err)
					return
				}
			}
			place := func(doc bson.Raw) string {
				broker, _ := doc.Lookup("broker").StringValueOK() // a damaged document
				return fmt.Sprintf("%d,%s,%s", i, placeOf(doc, "_id").ID, broker)
			}
			for _, filter := range filters {
				filter = append(filter, bson.E{Key: "state", Value: state})
				if i == begin && sel.After != "" {
					filter = append(filter, bson.E{Key: "$or", Value: bson.A{
						bson.D{{Key: "broker", Value: bson.D{{Key: "$gt", Value: broker}}}},
						bson.D{{Key: "broker", Value: broker}, {Key: "_id", Value: bson.D{{Key: "$gt", Value: id}}}},
					}})
				}
				if !s.walk(ctx, sel, filter, bson.D{{Key: "broker", Value: 1}, {Key: "_id", Value: 1}}, place, yield) {
					return
				}
			}
		}
	}
}

// brokerPlace reads a place in the order of brokers: the number of the state, an id and a broker,
// which may hold anything.
func brokerPlace(after string) (state int, id, broker string, err error) {
	if after == "" {
		return 0, "", "", nil
	}
	parts := strings.SplitN(after, ",", 3)
	if len(parts) != 3 {
		return 0, "", "", ErrCursor
	}
	state, err = strconv.Atoi(parts[0])
	if err != nil {
		return 0, "", "", ErrCursor
	}
	return state, parts[1], parts[2], nil
}

// formsOf returns filters for the forms of a broker's name that grants in a state have, in their order. It
// jumps from each name to the next in the index.
func (s *Store) formsOf(ctx context.Context, state State, broker string) (filters []bson.D, err error) {
	for from := (bson.E{Key: "$gte", Value: ""}); ; {
		found, err := s.grants.FindOne(ctx, bson.D{{Key: "state", Value: state}, {Key: "broker", Value: bson.D{from}}},
			options.FindOne().SetSort(bson.D{{Key: "broker", Value: 1}}).SetProjection(bson.D{{Key: "broker", Value: 1}, {Key: "_id", Value: 0}})).Raw()
		if errors.Is(err, mongo.ErrNoDocuments) {
			return filters, nil
		}
		if err != nil {
			return nil, err
		}
		name, _ := found.Lookup("broker").StringValueOK() // only texts are behind a text
		if events.SameBroker(name, broker) {
			filters = append(filters, bson.D{{Key: "broker", Value: name}})
		}
		from = bson.E{Key: "$gt", Value: name}
	}
}

func (s *Store) walkDue(ctx context.Context, sel Selection) iter.Seq2[browsed, error] {
	before := bson.E{Key: "$lt", Value: farFuture}
	if !sel.DueBefore.IsZero() {
		before.Value = Milli(sel.DueBefore)
	}
	return s.walkTimes(ctx, sel, "due.at", 1, before)
}

func (s *Store) walkFailing(ctx context.Context, sel Selection) iter.Seq2[browsed, error] {
	return s.walkTimes(ctx, sel, "failing.at", -1, bson.E{Key: "$lt", Value: farFuture})
}

// walkTimes walks grants by a time and by id; direction is that of a sort.
func (s *Store) walkTimes(ctx context.Context, sel Selection, field string, direction int, before bson.E) iter.Seq2[browsed, error] {
	return func(yield func(browsed, error) bool) {
		times := bson.D{before}
		filter := bson.D{}
		if sel.After != "" {
			text, id, _ := strings.Cut(sel.After, ",")
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil || id == "" {
				yield(browsed{}, ErrCursor)
				return
			}
			beyond, notBefore := "$gt", "$gte"
			if direction < 0 {
				beyond, notBefore = "$lt", "$lte"
			}
			times = append(times, bson.E{Key: notBefore, Value: at})
			filter = append(filter, bson.E{Key: "$or", Value: bson.A{
				bson.D{{Key: field, Value: bson.D{{Key: beyond, Value: at}}}},
				bson.D{{Key: "_id", Value: bson.D{{Key: beyond, Value: id}}}},
			}})
		}
		filter = append(filter, bson.E{Key: field, Value: times})
		place := func(doc bson.Raw) string {
			p := placeOf(doc, field)
			return p.At.Format(time.RFC3339Nano) + "," + p.ID
		}
		s.walk(ctx, sel, filter, bson.D{{Key: field, Value: direction}, {Key: "_id", Value: direction}}, place, yield)
	}
}

// FailingTally is how many active grants of a broker fail at present.
type FailingTally struct {
	// Broker is the key of the broker type.
	Broker string
	Grants int64
	// Latest is when the last failed.
	Latest time.Time
	// Errors counts them by ErrorOf.
	Errors map[string]int64
}

// TallyFailing counts the active grants whose last refresh failed by broker and error. It reads the latest
// failures up to a limit, those of grants that have ended among them. more: it read as many as it may.
func (s *Store) TallyFailing(ctx context.Context, limit int) (tallies []FailingTally, more bool, err error) {
	cursor, err := s.grants.Find(ctx, bson.D{{Key: "failing.at", Value: bson.D{{Key: "$lt", Value: farFuture}}}},
		options.Find().SetSort(bson.D{{Key: "failing.at", Value: -1}}).SetLimit(int64(limit)).
			SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "broker", Value: 1}, {Key: "state", Value: 1}, {Key: "failing", Value: 1}}))
	all, err := decodeAll[Grant](ctx, cursor, err, "counting failing grants by broker")
	if err != nil {
		return nil, false, err
	}
	found := map[string]FailingTally{}
	for _, g := range all {
		if g.State != Active {
			continue
		}
		key := events.BrokerKey(g.BrokerType)
		t, known := found[key]
		if !known {
			t = FailingTally{Broker: key, Latest: g.Failing.At.UTC(), Errors: map[string]int64{}}
		}
		t.Grants++
		t.Errors[ErrorOf(g.Failing)]++
		found[key] = t
	}
	return slices.SortedFunc(maps.Values(found), func(a, b FailingTally) int {
		return cmp.Or(cmp.Compare(b.Grants, a.Grants), cmp.Compare(a.Broker, b.Broker))
	}), len(all) == limit, nil
}
