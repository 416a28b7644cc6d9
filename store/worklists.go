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

// Reconciliation works through the lists below. Each is bounded, has an index, and
// is read page by page: a grant that stays in a list hides none behind it.

// OtherStreams returns the streams that grants name for their schedules, other than
// these: "" for schedules that were never made, and former streams.
func (s *Store) OtherStreams(ctx context.Context, streams []string) ([]string, error) {
	all, err := s.others(ctx, "due.stream", streams)
	return all, wrap(err, "listing the streams of schedules")
}

// OtherChainKeys returns the ids of the fingerprint keys that chains of grants name,
// other than one: these keys are lost.
func (s *Store) OtherChainKeys(ctx context.Context, key string) ([]string, error) {
	all, err := s.others(ctx, "chain.key", []string{key})
	return all, wrap(err, "listing the fingerprint keys of grants")
}

// others returns the texts that grants have in an indexed field, other than these. It
// finds each by a single lookup in the index, since millions of grants may share it.
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
			return nil, fmt.Errorf("%s of a grant is not text", field)
		}
		all = append(all, value)
	}
}

// ChainedBy returns the grants whose chain names a fingerprint key, in the order of
// their ids; empty: those without a chain, which earlier releases wrote.
func (s *Store) ChainedBy(ctx context.Context, key, after string, limit int) (Page, error) {
	named := any(key)
	if key == "" {
		named = nil
	}
	return s.listByID(ctx, "listing grants without fingerprints", after, limit, bson.D{{Key: "chain.key", Value: named}})
}

// Place is a place in a list: behind a grant, given by the time that sorts the list
// and its id. The zero Place is the beginning.
type Place struct {
	At time.Time
	ID string
}

// Page is a part of a list.
type Page struct {
	Grants []*Grant
	// Unreadable are the ids of documents that don't decode as grants.
	Unreadable []string
	// Next is the place behind the page; More: something may follow there.
	Next Place
	More bool
}

// ScheduledIn returns the grants due before the horizon that name a stream for their
// schedule, nearest first, without the first skip.
func (s *Store) ScheduledIn(ctx context.Context, stream string, horizon time.Time, after Place, skip, limit int) (Page, error) {
	return s.list(ctx, "listing grants without a schedule", "due.at", horizon, after, limit,
		bson.D{{Key: "due.stream", Value: stream}}, options.Find().SetSkip(int64(skip)))
}

// Overdue returns grants that were due before a time, longest overdue first.
func (s *Store) Overdue(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing overdue grants", "due.at", before, after, limit, nil)
}

// Unsent returns grants whose outbox has waited since before a time, longest first.
func (s *Store) Unsent(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing unsent events", "outbox.since", before, after, limit, nil)
}

// Purgeable returns grants whose record may be deleted.
func (s *Store) Purgeable(ctx context.Context, now time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing records to drop", "purgeAt", now, after, limit, nil)
}

// Ending returns active grants whose access token ends before a time, if that was not
// announced.
func (s *Store) Ending(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing grants whose access token ends", "access.expiresAt", before, after, limit,
		bson.D{{Key: "state", Value: Active}, {Key: "warned", Value: nil}})
}

// AccountsDue returns grants with single accounts that were due before a time, longest
// due first.
func (s *Store) AccountsDue(ctx context.Context, before time.Time, after Place, limit int) (Page, error) {
	return s.list(ctx, "listing grants with accounts due", "accountsDue", before, after, limit, nil)
}

// WithNothingDue returns active grants for which nothing is due, in the order of their ids.
func (s *Store) WithNothingDue(ctx context.Context, after Place, limit int) (Page, error) {
	return s.listByID(ctx, "listing grants for which nothing is due", after.ID, limit,
		bson.D{{Key: "due.at", Value: nil}, {Key: "state", Value: Active}})
}

// DueAfter returns active grants that are due after a time, nearest first.
func (s *Store) DueAfter(ctx context.Context, from time.Time, after Place, limit int) (Page, error) {
	if after.At.Before(from) {
		after = Place{At: Milli(from)}
	}
	return s.list(ctx, "listing grants that are due late", "due.at", farFuture, after, limit, bson.D{{Key: "state", Value: Active}})
}

var farFuture = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// list returns a page of the grants that a filter selects and whose time in a field is
// before another, sorted by that time and by id.
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

// listByID returns a page of the grants that a filter selects, sorted by id.
func (s *Store) listByID(ctx context.Context, doing, after string, limit int, filter bson.D) (Page, error) {
	filter = append(filter, bson.E{Key: "_id", Value: bson.D{{Key: "$gt", Value: after}}})
	cursor, err := s.grants.Find(ctx, filter, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}).SetLimit(int64(limit)))
	return readPage(ctx, cursor, err, doing, "_id", limit)
}

// readPage reads a page that is sorted by a field and by id. A document that does not
// decode does not hide the others.
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

// placeOf returns the place behind a document, readable or not.
func placeOf(doc bson.Raw, field string) (p Place) {
	p.At, _ = doc.Lookup(strings.Split(field, ".")...).TimeOK()
	switch id := doc.Lookup("_id"); {
	case id.Type == bson.TypeString:
		p.ID = id.StringValue()
	case !id.IsNumber():
		p.ID = lastID // such ids sort behind all strings
	}
	p.At = p.At.UTC()
	return p
}

// lastID is behind every id of a grant.
const lastID = "\U0010ffff"

// RecordReschedule records that an overdue schedule is made again. ErrConflict: another worker has
// done so since g was read, or the grant has changed.
func (s *Store) RecordReschedule(ctx context.Context, g *Grant, now time.Time) error {
	before := any(g.Due.Reschedules)
	if g.Due.Reschedules == 0 {
		before = nil // the field is absent
	}
	return wrap(matched(s.grants.UpdateOne(ctx, append(revision(g.ID, g.Rev), bson.E{Key: "due.pokes", Value: before}), bson.D{
		{Key: "$inc", Value: bson.D{{Key: "due.pokes", Value: 1}}},
		{Key: "$set", Value: bson.D{{Key: "due.pokedAt", Value: Milli(now)}}},
	})), "recording the rescheduling of grant %s", g.ID)
}
