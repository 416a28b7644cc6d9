package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The lists below are what reconciliation works through. Each is bounded and
// has an index, and is walked through by place: what stays in a list hides
// nothing behind it.

// OtherStreams returns what grants name as the streams of their schedules and is
// none of these. There are few: "" where no schedule was made, and streams of
// before.
func (s *Store) OtherStreams(ctx context.Context, streams []string) ([]string, error) {
	all, err := s.others(ctx, "due.stream", streams)
	if err != nil {
		return nil, fmt.Errorf("listing the streams of schedules: %w", err)
	}
	return all, nil
}

// OtherChainKeys returns the ids of the fingerprint keys that chains of grants
// name, other than one: such keys are lost.
func (s *Store) OtherChainKeys(ctx context.Context, key string) ([]string, error) {
	all, err := s.others(ctx, "chain.key", []string{key})
	if err != nil {
		return nil, fmt.Errorf("listing the fingerprint keys of grants: %w", err)
	}
	return all, nil
}

// others returns the texts that grants have in an indexed field, other than these: from
// one to the next, each by a single look into the index, since there may be millions of
// grants of each.
func (s *Store) others(ctx context.Context, field string, than []string) (all []string, err error) {
	for from := (bson.E{Key: "$gte", Value: ""}); ; from = (bson.E{Key: "$gt", Value: all[len(all)-1]}) {
		found, err := s.grants.FindOne(ctx,
			bson.D{{Key: field, Value: bson.D{from, {Key: "$nin", Value: than}}}},
			options.FindOne().SetSort(bson.D{{Key: field, Value: 1}}).SetProjection(bson.D{{Key: field, Value: 1}, {Key: "_id", Value: 0}}),
		).Raw()
		if errors.Is(err, mongo.ErrNoDocuments) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		value, ok := found.Lookup(strings.Split(field, ".")...).StringValueOK()
		if !ok {
			return nil, fmt.Errorf("%s of a grant is no text", field)
		}
		all = append(all, value)
	}
}

// ChainedBy returns grants whose chain names a fingerprint key, by id; empty: those
// without a chain, as earlier releases wrote them.
func (s *Store) ChainedBy(ctx context.Context, key, after string, limit int) (Page, error) {
	named := any(key)
	if key == "" {
		named = nil
	}
	cursor, err := s.grants.Find(ctx, bson.D{
		{Key: "chain.key", Value: named},
		{Key: "_id", Value: bson.D{{Key: "$gt", Value: after}}},
	}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}).SetLimit(int64(limit)))
	return readPage(ctx, cursor, err, "listing grants without fingerprints", "_id", limit)
}

// Place is where a walk through a list goes on: behind a grant, by the time that
// the list is sorted by and by its id. The zero Place is the beginning.
type Place struct {
	At time.Time
	ID string
}

// Page is a part of a list.
type Page struct {
	Grants []*Grant
	// Unreadable are the ids of documents that don't decode as grants.
	Unreadable []string
	// Next is where the list goes on; More: something may follow there.
	Next Place
	More bool
}

// ScheduledIn returns grants due before the horizon that name a stream for their
// schedule, nearest first, without the first skip of them.
func (s *Store) ScheduledIn(ctx context.Context, stream string, horizon time.Time, after Place, skip, limit int) (Page, error) {
	return s.list(ctx, "listing grants without a schedule", "due.at", horizon, after, limit,
		bson.D{{Key: "due.stream", Value: stream}}, options.Find().SetSkip(int64(skip)))
}

// Overdue returns grants that were due before a time, longest overdue first.
func (s *Store) Overdue(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing overdue grants", "due.at", before, after, limit, nil)
}

// Unsent returns grants whose outbox has waited since before a time, longest
// first.
func (s *Store) Unsent(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing unsent events", "outbox.since", before, after, limit, nil)
}

// Purgeable returns grants whose record may go.
func (s *Store) Purgeable(ctx context.Context, now time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing records to drop", "purgeAt", now, after, limit, nil)
}

// Ending returns active grants whose access token ends before a time, unless that
// was announced already.
func (s *Store) Ending(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing grants whose access token ends", "access.expiresAt", before, after, limit,
		bson.D{{Key: "state", Value: Active}, {Key: "warned", Value: nil}})
}

// AccountsDue returns grants with single accounts for which something was due
// before a time, longest first.
func (s *Store) AccountsDue(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing grants with accounts due", "accountsDue", before, after, limit, nil)
}

// Undue returns active grants for which nothing is due, in the order of their ids.
func (s *Store) Undue(ctx context.Context, after Place, limit int) (Page, error) {
	filter := bson.D{{Key: "due.at", Value: nil}, {Key: "_id", Value: bson.D{{Key: "$gt", Value: after.ID}}}, {Key: "state", Value: Active}}
	cursor, err := s.grants.Find(ctx, filter, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}).SetLimit(int64(limit)))
	return readPage(ctx, cursor, err, "listing grants for which nothing is due", "due.at", limit)
}

// DueAfter returns active grants that are due after a time, nearest first.
func (s *Store) DueAfter(ctx context.Context, from time.Time, after Place, limit int) (Page, error) {
	if after.At.Before(from) {
		after = Place{At: Milli(from)}
	}
	return s.list(ctx, "listing grants that are due late", "due.at", never, after, limit, bson.D{{Key: "state", Value: Active}})
}

// never is a time before which all lies.
var never = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// list returns a page of the grants that a filter selects and whose time in a
// field lies before another, in the order of these times and of their ids.
func (s *Store) list(ctx context.Context, doing, field string, before time.Time, after Place, limit int, filter bson.D, more ...options.Lister[options.FindOptions]) (Page, error) {
	times := bson.D{{Key: "$lt", Value: Milli(before)}}
	if after != (Place{}) {
		times = append(times, bson.E{Key: "$gte", Value: after.At})
		filter = append(filter, bson.E{Key: "$or", Value: bson.A{
			bson.D{{Key: field, Value: bson.D{{Key: "$gt", Value: after.At}}}},
			bson.D{{Key: "_id", Value: bson.D{{Key: "$gt", Value: after.ID}}}},
		}})
	}
	filter = append(filter, bson.E{Key: field, Value: times})
	opts := append(more, options.Find().SetSort(bson.D{{Key: field, Value: 1}, {Key: "_id", Value: 1}}).SetLimit(int64(limit)))
	cursor, err := s.grants.Find(ctx, filter, opts...)
	return readPage(ctx, cursor, err, doing, field, limit)
}

// readPage reads a page that is sorted by a field and by id, one document after the
// other: one that does not decode keeps none of the others back.
func readPage(ctx context.Context, cursor *mongo.Cursor, err error, doing, field string, limit int) (page Page, _ error) {
	if err != nil {
		return Page{}, fmt.Errorf("%s: %w", doing, err)
	}
	defer cursor.Close(context.WithoutCancel(ctx))
	n := 0
	for ; cursor.Next(ctx); n++ {
		page.Next = placeOf(cursor.Current, field)
		var g Grant
		if cursor.Decode(&g) != nil {
			page.Unreadable = append(page.Unreadable, page.Next.ID)
			continue
		}
		page.Grants = append(page.Grants, &g)
	}
	if err := cursor.Err(); err != nil {
		return Page{}, fmt.Errorf("%s: %w", doing, err)
	}
	page.More = n >= limit
	return page, nil
}

// placeOf is the place behind a document, whatever else is in it.
func placeOf(doc bson.Raw, field string) (p Place) {
	p.At, _ = doc.Lookup(strings.Split(field, ".")...).TimeOK()
	switch id := doc.Lookup("_id"); {
	case id.Type == bson.TypeString:
		p.ID = id.StringValue()
	case !id.IsNumber():
		p.ID = lastID // such ids are sorted behind all strings
	}
	p.At = p.At.UTC()
	return p
}

// lastID is behind every id of a grant.
const lastID = "\U0010ffff"

// Poked records that an overdue schedule is made again, if nobody has done so
// since g was read. ErrConflict: somebody has, or the grant has changed.
func (s *Store) Poked(ctx context.Context, g *Grant, now time.Time) error {
	before := any(g.Due.Pokes)
	if g.Due.Pokes == 0 {
		before = nil // it is not written then
	}
	res, err := s.grants.UpdateOne(ctx, append(revision(g.ID, g.Rev), bson.E{Key: "due.pokes", Value: before}), bson.D{
		{Key: "$inc", Value: bson.D{{Key: "due.pokes", Value: 1}}},
		{Key: "$set", Value: bson.D{{Key: "due.pokedAt", Value: Milli(now)}}},
	})
	if err == nil && res.MatchedCount == 0 {
		err = ErrConflict
	}
	if err != nil {
		return fmt.Errorf("recording a schedule made again for grant %s: %w", g.ID, err)
	}
	return nil
}
