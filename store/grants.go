package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/events/tracing"
)

// Get returns a grant, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (*Grant, error) {
	g, err := decodeOne[Grant](s.grants.FindOne(ctx, byID(id)), ErrNotFound, "reading grant %s", id)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("grant %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return &g, nil
}

// ByUser returns all grants of a user, in no order.
func (s *Store) ByUser(ctx context.Context, userID string) ([]*Grant, error) {
	return s.ByUserWith(ctx, userID)
}

// ByUserWith is ByUser for a caller that has some of the grants. Those that are stored as
// they are known are not decoded again: it returns them.
func (s *Store) ByUserWith(ctx context.Context, userID string, known ...*Grant) ([]*Grant, error) {
	return s.userReads.do(ctx, userSearch{userID, known})
}

type userSearch struct {
	user  string
	known knownGrants
}

func (s *Store) byUsers(ctx context.Context, searches []userSearch) []outcome[[]*Grant] {
	const doing = "reading users' grants"
	users := make([]string, len(searches))
	by := make(map[string][]int, len(searches)) // the searches for a user
	for i, search := range searches {
		users[i], by[search.user] = search.user, append(by[search.user], i)
	}
	out := make([]outcome[[]*Grant], len(searches))
	err := s.each(ctx, anyOf("user", users), func(doc bson.Raw, decode func() (*Grant, error)) {
		user, _ := doc.Lookup("user").StringValueOK()
		for _, i := range by[user] { // callers share no grant
			g, err := searches[i].known.or(doc, decode)
			if err != nil { // of one user only
				out[i].err = fmt.Errorf("%s: %w", doing, err)
				continue
			}
			out[i].out = append(out[i].out, g)
		}
	})
	if err != nil {
		return outcomes[[]*Grant](len(searches), nil, fmt.Errorf("%s: %w", doing, err))
	}
	return out
}

// knownGrants are grants that a caller has in memory.
type knownGrants []*Grant

// or returns the grant of a document: one of the known ones if that is stored as it is, or
// else what decode returns. A user who disconnects and connects again may have a grant of the
// same id and revision, but no two sealed token sets are alike. Another worker may have sent
// the outbox, which raises no revision: then subscribers know of the grant.
func (known knownGrants) or(doc bson.Raw, decode func() (*Grant, error)) (*Grant, error) {
	id, rev := idAndRev(doc)
	_, sealed, _ := doc.Lookup("sealed", "data").BinaryOK()
	_, hasOutbox := doc.Lookup("outbox").DocumentOK()
	at := slices.IndexFunc(known, func(g *Grant) bool {
		return g.ID == id && g.Rev == rev && (g.Outbox != nil) == hasOutbox && bytes.Equal(g.Sealed.Data, sealed)
	})
	if at >= 0 {
		return known[at], nil
	}
	return decode()
}

// each passes each document that a filter selects to do, with what decodes it.
func (s *Store) each(ctx context.Context, filter bson.D, do func(doc bson.Raw, decode func() (*Grant, error))) error {
	cursor, err := s.grants.Find(ctx, filter)
	if err != nil {
		return err
	}
	defer cursor.Close(context.WithoutCancel(ctx))
	decode := func() (*Grant, error) {
		var g Grant
		return &g, bson.Unmarshal(cursor.Current, &g)
	}
	for cursor.Next(ctx) {
		do(cursor.Current, decode)
	}
	return cursor.Err()
}

// ByFingerprints returns the grants, of all users, that have or had one of some refresh tokens,
// by the tokens' fingerprints. Those of known that are stored at their revision are returned
// as they are, and not decoded again.
func (s *Store) ByFingerprints(ctx context.Context, fingerprints []string, known ...*Grant) ([]*Grant, error) {
	if len(fingerprints) == 0 {
		return nil, nil
	}
	return s.fingerprintReads.do(ctx, chainSearch{fingerprints, known})
}

type chainSearch struct {
	fingerprints []string
	known        knownGrants
}

func (s *Store) byFingerprints(ctx context.Context, searches []chainSearch) []outcome[[]*Grant] {
	var all []string
	by := map[string][]int{} // the searches for a fingerprint
	for i, search := range searches {
		all = append(all, search.fingerprints...)
		for _, f := range search.fingerprints {
			by[f] = append(by[f], i)
		}
	}
	out := make([]outcome[[]*Grant], len(searches))
	for sought := range slices.Chunk(all, maxSought) {
		err := s.each(ctx, anyOf("fingerprints", sought), func(doc bson.Raw, decode func() (*Grant, error)) {
			id, _ := idAndRev(doc)
			for _, i := range searchesFor(doc, by) {
				if slices.ContainsFunc(out[i].out, func(g *Grant) bool { return g.ID == id }) {
					continue
				}
				if g, err := searches[i].known.or(doc, decode); err == nil { // a grant that does not decode is never refreshed
					out[i].out = append(out[i].out, g)
				}
			}
		})
		if err != nil {
			return outcomes[[]*Grant](len(searches), nil, fmt.Errorf("looking for the grants of refresh tokens: %w", err))
		}
	}
	return out
}

func idAndRev(doc bson.Raw) (id string, rev int64) {
	id, _ = doc.Lookup("_id").StringValueOK()
	rev, _ = doc.Lookup("rev").AsInt64OK()
	return id, rev
}

// searchesFor returns the searches that a document answers.
func searchesFor(doc bson.Raw, by map[string][]int) (searches []int) {
	list, _ := doc.Lookup("fingerprints").ArrayOK()
	values, _ := list.Values() // it was found by one of them
	for _, v := range values {
		fingerprint, _ := v.StringValueOK()
		searches = append(searches, by[fingerprint]...)
	}
	return searches
}

// anyOf selects the documents in which a field has one of some values, which may
// repeat.
func anyOf(field string, values []string) bson.D {
	values = slices.Compact(slices.Sorted(slices.Values(values)))
	if len(values) == 1 {
		return bson.D{{Key: field, Value: values[0]}}
	}
	return bson.D{{Key: field, Value: bson.D{{Key: "$in", Value: values}}}}
}

// Insert stores a new grant with revision 1. ErrConflict: the id is taken.
func (s *Store) Insert(ctx context.Context, g *Grant) (err error) {
	g.Rev, g.Fingerprints = 1, g.Chain.Fingerprints()
	g.addTrace(ctx)
	ctx, span := startSpan(ctx, "insert", g)
	defer func() { tracing.End(span, err) }()
	doc, err := bson.Marshal(g)
	if err == nil {
		_, err = s.inserts.do(ctx, doc)
	}
	if duplicate(err) {
		err = ErrConflict
	}
	return wrap(err, "inserting grant %s", g.ID)
}

func (s *Store) insertAll(ctx context.Context, docs []bson.Raw) []outcome[struct{}] {
	_, err := s.grants.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
	return bulkOutcomes(len(docs), err)
}

// bulkOutcomes returns the outcome of each of the n statements of an unordered bulk,
// with the error that the driver returns for a single statement. After a write concern
// error a statement was carried out, and may be rolled back.
func bulkOutcomes(n int, err error) []outcome[struct{}] {
	var bulk mongo.BulkWriteException
	if !errors.As(err, &bulk) {
		return outcomes(n, struct{}{}, err) // the same for all
	}
	var concern error
	if bulk.WriteConcernError != nil {
		concern = mongo.WriteException{WriteConcernError: bulk.WriteConcernError, Labels: bulk.Labels}
	}
	all := outcomes(n, struct{}{}, concern)
	for _, e := range bulk.WriteErrors {
		if e.Index >= 0 && e.Index < n {
			all[e.Index].err = mongo.WriteException{WriteErrors: mongo.WriteErrors{e.WriteError}, WriteConcernError: bulk.WriteConcernError}
		}
	}
	return all
}

// Save replaces the document if it still has the revision of g, and raises that
// revision. ErrConflict: the document has changed or is gone. After any other error
// the write may have happened.
func (s *Store) Save(ctx context.Context, g *Grant) (err error) {
	g.Rev, g.Fingerprints = g.Rev+1, g.Chain.Fingerprints()
	g.addTrace(ctx)
	ctx, span := startSpan(ctx, "replace", g)
	defer func() { tracing.End(span, err) }()
	err = wrap(matched(s.grants.ReplaceOne(ctx, revision(g.ID, g.Rev-1), g)), "saving grant %s", g.ID)
	if err != nil {
		g.Rev--
	}
	return err
}

// Change saves what change makes of a grant, and returns it. If the grant has changed
// since it was read, change decides again about the grant as it is stored. When change
// returns nil or an error, nothing is saved.
func (s *Store) Change(ctx context.Context, g *Grant, change func(*Grant) (*Grant, error)) (*Grant, error) {
	for read := g; ; {
		next, err := change(read)
		if next == nil || err != nil {
			return nil, err
		}
		if err = s.Save(ctx, next); err == nil {
			return next, nil
		}
		if !errors.Is(err, ErrConflict) {
			return nil, err
		}
		if read, err = s.Get(ctx, g.ID); err != nil {
			return nil, err
		}
	}
}

// Delete removes the document if it still has the revision of g.
func (s *Store) Delete(ctx context.Context, g *Grant) error {
	res, err := s.grants.DeleteOne(ctx, revision(g.ID, g.Rev))
	if err == nil && res.DeletedCount == 0 {
		err = ErrConflict
	}
	return wrap(err, "deleting grant %s", g.ID)
}

func revision(id string, rev int64) bson.D {
	return bson.D{{Key: "_id", Value: id}, {Key: "rev", Value: rev}}
}

// LeaseRequest is what Acquire takes.
type LeaseRequest struct {
	GrantID string
	// Version is that of the token set to refresh.
	Version int64
	// DueAt, if set, must be the grant's due time.
	DueAt *time.Time
	// Owner must be unique to this request.
	Owner string
	// Now and Until are by the caller's clock.
	Now, Until time.Time
	// DueNow makes a refresh due with the lease, unless something is due earlier, so
	// that the grant does not wait if its holder dies. The grant that Acquire returns
	// keeps its due time.
	DueNow bool
	// Report, if set, is the report that causes the refresh. It is stored with the
	// lease, and there is no lease if another has been stored since ReportsSince.
	Report       *RefusedReport
	ReportsSince time.Time
}

// Acquire takes the lease of a grant and returns the leased grant, with a new epoch.
// takenOver: the holder of the former lease died or was cut off, so what it did at Mesh
// is unknown.
//
// The error wraps ErrNotFound, ErrStale or a *LeasedError.
func (s *Store) Acquire(ctx context.Context, r LeaseRequest) (g *Grant, takenOver bool, err error) {
	lease := Lease{Owner: r.Owner, Until: Milli(r.Until)}
	filter := bson.D{
		{Key: "_id", Value: r.GrantID},
		{Key: "version", Value: r.Version},
		{Key: "state", Value: bson.D{{Key: "$in", Value: bson.A{Active, MustAct}}}},
		{Key: "$or", Value: notLeased(r.Now)},
	}
	if r.DueAt != nil {
		filter = append(filter, bson.E{Key: "due.at", Value: *r.DueAt})
	}
	set := bson.D{{Key: "lease", Value: lease}}
	if r.Report != nil {
		filter = append(filter, bson.E{Key: "$and", Value: bson.A{bson.D{{Key: "$or", Value: noneAfter("refused", "refused.at", r.ReportsSince)}}}})
		set = append(set, bson.E{Key: "refused", Value: *r.Report})
	}
	update := bson.D{
		{Key: "$set", Value: set},
		{Key: "$inc", Value: bson.D{{Key: "rev", Value: int64(1)}, {Key: "epoch", Value: int64(1)}}},
	}
	if r.DueNow {
		update[0].Value = append(set, bson.E{Key: "due.action", Value: Refresh})
		update = append(update, bson.E{Key: "$min", Value: bson.D{{Key: "due.at", Value: Milli(r.Now)}}})
	}
	ctx, span := startSpan(ctx, "findAndModify", &Grant{ID: r.GrantID, Version: r.Version})
	defer func() { tracing.End(span, err) }()
	before, err := decodeOne[Grant](s.grants.FindOneAndUpdate(ctx, filter, update, options.FindOneAndUpdate().SetReturnDocument(options.Before)),
		ErrNotFound, "leasing grant %s", r.GrantID)
	if errors.Is(err, ErrNotFound) {
		return nil, false, s.whyNoLease(ctx, r)
	}
	if err != nil {
		return nil, false, err
	}
	takenOver = before.Lease != nil
	before.Lease = &lease
	if r.Report != nil {
		before.RefusedReport = r.Report
	}
	before.Rev++
	before.Epoch++
	return &before, takenOver, nil
}

func notLeased(now time.Time) bson.A { return noneAfter("lease", "lease.until", now) }

func noneAfter(field, timeField string, t time.Time) bson.A {
	return bson.A{
		bson.D{{Key: field, Value: nil}},
		bson.D{{Key: timeField, Value: bson.D{{Key: "$lte", Value: Milli(t)}}}},
	}
}

func (s *Store) whyNoLease(ctx context.Context, r LeaseRequest) error {
	g, err := s.Get(ctx, r.GrantID)
	if err != nil {
		return err
	}
	current := g.Version == r.Version && (g.State == Active || g.State == MustAct) &&
		(r.DueAt == nil || g.Due != nil && g.Due.At.Equal(*r.DueAt))
	if current && g.Lease.Valid(r.Now) {
		return fmt.Errorf("leasing grant %s: %w", r.GrantID, &LeasedError{Until: g.Lease.Until})
	}
	return fmt.Errorf("leasing grant %s: %w", r.GrantID, ErrStale)
}

// ClearOutbox removes the outbox of a grant if the document still has the revision of
// g, and records which stream holds the schedule (empty: none). A conflict is no error:
// the writer of the newer revision sends what remains.
func (s *Store) ClearOutbox(ctx context.Context, g *Grant, stream string) error {
	update := bson.D{{Key: "$unset", Value: bson.D{{Key: "outbox", Value: ""}}}}
	if g.Due != nil && stream != "" {
		update = append(update, bson.E{Key: "$set", Value: bson.D{{Key: "due.stream", Value: stream}}})
	}
	_, err := s.clears.do(ctx, mongo.NewUpdateOneModel().SetFilter(revision(g.ID, g.Rev)).SetUpdate(update))
	return wrap(err, "clearing the outbox of grant %s", g.ID)
}

func (s *Store) clearAll(ctx context.Context, updates []mongo.WriteModel) []outcome[struct{}] {
	_, err := s.grants.BulkWrite(ctx, updates, options.BulkWrite().SetOrdered(false))
	return bulkOutcomes(len(updates), err)
}

// RecordUse records that somebody requested the tokens of the present version of a grant.
// It is a hint: a write of the whole grant at the same time may undo it.
func (s *Store) RecordUse(ctx context.Context, g *Grant) error {
	_, err := s.grants.UpdateOne(ctx, bson.D{{Key: "_id", Value: g.ID}, {Key: "version", Value: g.Version}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "usedIn", Value: g.Version}}}})
	return wrap(err, "recording the use of grant %s", g.ID)
}
