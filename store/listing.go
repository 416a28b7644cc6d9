package store

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"
	"unicode"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Listing selects grants. Zero fields select all.
type Listing struct {
	State State
	// Broker is a broker type, in any case.
	Broker string
	// DueBefore lists what is due before a time in the order of due times, by an
	// index. Without it grants come in the order of their ids, and the server reads
	// the grants that the other fields exclude.
	DueBefore time.Time
	// After is the CursorOf the last grant of the page before.
	After string
	Limit int
}

// ErrCursor: Listing.After is not a cursor of this listing.
var ErrCursor = errors.New("not a place in this list")

// CursorOf returns the cursor behind a grant.
func (l Listing) CursorOf(g *Grant) string {
	if l.DueBefore.IsZero() {
		return g.ID
	}
	return g.Due.At.UTC().Format(time.RFC3339Nano) + "," + g.ID
}

// List returns a page of grants without their sealed tokens.
func (s *Store) List(ctx context.Context, l Listing) ([]*Grant, error) {
	filter := bson.D{}
	if l.State != "" {
		filter = append(filter, bson.E{Key: "state", Value: l.State})
	}
	if l.Broker != "" {
		filter = append(filter, bson.E{Key: "broker", Value: bson.Regex{Pattern: inAnyCase(l.Broker)}})
	}
	sort := bson.D{{Key: "_id", Value: 1}}
	if l.DueBefore.IsZero() {
		if l.After != "" {
			filter = append(filter, bson.E{Key: "_id", Value: bson.D{{Key: "$gt", Value: l.After}}})
		}
	} else {
		sort = append(bson.D{{Key: "due.at", Value: 1}}, sort...)
		due, err := l.due()
		if err != nil {
			return nil, err
		}
		filter = append(filter, due...)
	}
	cursor, err := s.grants.Find(ctx, filter, options.Find().SetSort(sort).SetLimit(int64(l.Limit)).SetProjection(bson.D{{Key: "sealed", Value: 0}, {Key: "chain", Value: 0}}))
	return decodeAll[*Grant](ctx, cursor, err, "listing grants")
}

// inAnyCase returns a regular expression for a broker type in any case. It lists
// each character's forms, since engines disagree about case folding.
func inAnyCase(brokerType string) string {
	var b strings.Builder
	b.WriteByte('^')
	for _, r := range brokerType {
		b.WriteString("(?:" + regexp.QuoteMeta(string(r)))
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			b.WriteString("|" + string(other))
		}
		b.WriteByte(')')
	}
	b.WriteByte('$')
	return b.String()
}

func (l Listing) due() (bson.D, error) {
	before := bson.E{Key: "$lt", Value: Milli(l.DueBefore)}
	if l.After == "" {
		return bson.D{{Key: "due.at", Value: bson.D{before}}}, nil
	}
	text, id, _ := strings.Cut(l.After, ",")
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || id == "" {
		return nil, ErrCursor
	}
	return bson.D{
		{Key: "due.at", Value: bson.D{{Key: "$gte", Value: at}, before}},
		{Key: "$or", Value: bson.A{
			bson.D{{Key: "due.at", Value: bson.D{{Key: "$gt", Value: at}}}},
			bson.D{{Key: "_id", Value: bson.D{{Key: "$gt", Value: id}}}},
		}},
	}, nil
}
