package store

import (
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
	var g Grant
	err := s.grants.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Decode(&g)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, fmt.Errorf("grant %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading grant %s: %w", id, err)
	}
	return &g, nil
}

// ByUser returns all grants of a user, in no order.
func (s *Store) ByUser(ctx context.Context, userID string) ([]*Grant, error) {
	return s.userReads.do(ctx, userID)
}

func (s *Store) byUsers(ctx context.Context, users []string) []outcome[[]*Grant] {
	cursor, err := s.grants.Find(ctx, anyOf("user", users))
	if err != nil {
		return failed[[]*Grant](len(users), fmt.Errorf("reading users' grants: %w", err))
	}
	defer cursor.Close(context.WithoutCancel(ctx))
	grants := make(map[string][]*Grant, len(users))
	faults := map[string]error{} // of one user, and of nobody who asked at the same time
	for cursor.Next(ctx) {
		var g Grant
		if err := cursor.Decode(&g); err != nil {
			user, _ := cursor.Current.Lookup("user").StringValueOK()
			faults[user] = fmt.Errorf("reading users' grants: %w", err)
			continue
		}
		grants[g.UserID] = append(grants[g.UserID], &g)
	}
	if err := cursor.Err(); err != nil {
		return failed[[]*Grant](len(users), fmt.Errorf("reading users' grants: %w", err))
	}
	all := make([]outcome[[]*Grant], len(users))
	for i, user := range users {
		all[i].out, all[i].err = grants[user], faults[user]
		// Who asked for the same user shares nothing with the others.
		if slices.Contains(users[i+1:], user) {
			all[i].out = cloneAll(grants[user])
		}
	}
	return all
}

// Holders returns the grants of all users that have or had one of some refresh
// tokens, by their fingerprints.
func (s *Store) Holders(ctx context.Context, fingerprints []string) ([]*Grant, error) {
	if len(fingerprints) == 0 {
		return nil, nil
	}
	return s.holderReads.do(ctx, fingerprints)
}

func (s *Store) holders(ctx context.Context, asked [][]string) []outcome[[]*Grant] {
	const doing = "looking for the grants of refresh tokens"
	var found []*Grant
	for sought := range slices.Chunk(slices.Concat(asked...), maxSought) {
		cursor, err := s.grants.Find(ctx, anyOf("fingerprints", sought))
		if err != nil {
			return failed[[]*Grant](len(asked), fmt.Errorf("%s: %w", doing, err))
		}
		for cursor.Next(ctx) {
			var g Grant
			if cursor.Decode(&g) == nil { // of what can't be read nobody refreshes the tokens
				found = append(found, &g)
			}
		}
		err = cursor.Err()
		_ = cursor.Close(context.WithoutCancel(ctx))
		if err != nil {
			return failed[[]*Grant](len(asked), fmt.Errorf("%s: %w", doing, err))
		}
	}
	all := make([]outcome[[]*Grant], len(asked))
	for i, fingerprints := range asked {
		seen := map[string]bool{}
		for _, g := range found {
			if !seen[g.ID] && slices.ContainsFunc(fingerprints, g.Chain.linked) {
				seen[g.ID] = true
				all[i].out = append(all[i].out, g.Clone())
			}
		}
	}
	return all
}

func cloneAll(grants []*Grant) []*Grant {
	clones := make([]*Grant, len(grants))
	for i, g := range grants {
		clones[i] = g.Clone()
	}
	return clones
}

// anyOf selects documents by a field that has one of some values. Many who ask
// at once ask for the same.
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
	g.traced(ctx)
	ctx, span := startSpan(ctx, "insert", g)
	defer func() { tracing.End(span, err) }()
	doc, err := bson.Marshal(g)
	if err == nil {
		_, err = s.inserts.do(ctx, doc)
	}
	if duplicate(err) {
		return fmt.Errorf("inserting grant %s: %w", g.ID, ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("inserting grant %s: %w", g.ID, err)
	}
	return nil
}

func (s *Store) insertAll(ctx context.Context, docs []bson.Raw) []outcome[struct{}] {
	_, err := s.grants.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
	return bulkOutcomes(len(docs), err)
}

// bulkOutcomes tells the outcome of each of the n statements of an unordered
// bulk from its error, as the driver tells that of a statement by itself. After
// a write concern error a statement was done, and may be taken back.
func bulkOutcomes(n int, err error) []outcome[struct{}] {
	var bulk mongo.BulkWriteException
	if !errors.As(err, &bulk) {
		return failed[struct{}](n, err) // of none it is known
	}
	all := make([]outcome[struct{}], n)
	if bulk.WriteConcernError != nil {
		all = failed[struct{}](n, mongo.WriteException{WriteConcernError: bulk.WriteConcernError, Labels: bulk.Labels})
	}
	for _, e := range bulk.WriteErrors {
		if e.Index < 0 || e.Index >= n {
			continue // of no statement of ours
		}
		all[e.Index].err = mongo.WriteException{WriteErrors: mongo.WriteErrors{e.WriteError}, WriteConcernError: bulk.WriteConcernError}
	}
	return all
}

// Save replaces the document if it still has the revision of g, and raises
// that revision. ErrConflict: it has not, or is gone. After any other error
// the write may or may not have happened.
func (s *Store) Save(ctx context.Context, g *Grant) (err error) {
	g.Rev, g.Fingerprints = g.Rev+1, g.Chain.Fingerprints()
	g.traced(ctx)
	ctx, span := startSpan(ctx, "replace", g)
	defer func() { tracing.End(span, err) }()
	res, err := s.grants.ReplaceOne(ctx, revision(g.ID, g.Rev-1), g)
	switch {
	case err != nil:
		err = fmt.Errorf("saving grant %s: %w", g.ID, err)
	case res.MatchedCount == 0:
		err = fmt.Errorf("saving grant %s: %w", g.ID, ErrConflict)
	}
	if err != nil {
		g.Rev--
	}
	return err
}

// Delete removes the document if it still has the revision of g.
func (s *Store) Delete(ctx context.Context, g *Grant) error {
	res, err := s.grants.DeleteOne(ctx, revision(g.ID, g.Rev))
	if err != nil {
		return fmt.Errorf("deleting grant %s: %w", g.ID, err)
	}
	if res.DeletedCount == 0 {
		return fmt.Errorf("deleting grant %s: %w", g.ID, ErrConflict)
	}
	return nil
}

func revision(id string, rev int64) bson.D {
	return bson.D{{Key: "_id", Value: id}, {Key: "rev", Value: rev}}
}

// LeaseRequest says which lease is wanted.
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
	// DueNow makes a refresh due with the lease, unless something is due before: should
	// its holder die, the grant does not wait for what is due much later, or never.
	// The grant that Acquire returns is still due when it was.
	DueNow bool
	// Refused, if set, is the report for which the grant is to be refreshed. It is
	// stored with the lease, and counts only if none has since RefusedSince.
	Refused      *Refused
	RefusedSince time.Time
}

// Acquire takes the lease of a grant and returns the grant as it then is,
// with a new epoch. takenOver: the lease before was never given back, so its
// holder died or was cut off, and what it did at Mesh is not known.
//
// The error wraps ErrNotFound, ErrStale or is a *LeasedError.
func (s *Store) Acquire(ctx context.Context, r LeaseRequest) (g *Grant, takenOver bool, err error) {
	lease := Lease{Owner: r.Owner, Until: Milli(r.Until)}
	filter := bson.D{
		{Key: "_id", Value: r.GrantID},
		{Key: "version", Value: r.Version},
		{Key: "state", Value: bson.D{{Key: "$in", Value: bson.A{Active, MustAct}}}},
		{Key: "$or", Value: bson.A{
			bson.D{{Key: "lease", Value: nil}},
			bson.D{{Key: "lease.until", Value: bson.D{{Key: "$lte", Value: Milli(r.Now)}}}},
		}},
	}
	if r.DueAt != nil {
		filter = append(filter, bson.E{Key: "due.at", Value: *r.DueAt})
	}
	set := bson.D{{Key: "lease", Value: lease}}
	if r.Refused != nil {
		filter = append(filter, bson.E{Key: "$and", Value: bson.A{bson.D{{Key: "$or", Value: bson.A{
			bson.D{{Key: "refused", Value: nil}},
			bson.D{{Key: "refused.at", Value: bson.D{{Key: "$lte", Value: Milli(r.RefusedSince)}}}},
		}}}}})
		set = append(set, bson.E{Key: "refused", Value: *r.Refused})
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
	var before Grant
	err = s.grants.FindOneAndUpdate(ctx, filter, update, options.FindOneAndUpdate().SetReturnDocument(options.Before)).Decode(&before)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, false, s.whyNoLease(ctx, r)
	}
	if err != nil {
		return nil, false, fmt.Errorf("leasing grant %s: %w", r.GrantID, err)
	}
	takenOver = before.Lease != nil
	before.Lease = &lease
	if r.Refused != nil {
		before.Refused = r.Refused
	}
	before.Rev++
	before.Epoch++
	return &before, takenOver, nil
}

func (s *Store) whyNoLease(ctx context.Context, r LeaseRequest) error {
	g, err := s.Get(ctx, r.GrantID)
	if err != nil {
		return err
	}
	current := g.Version == r.Version && (g.State == Active || g.State == MustAct) &&
		(r.DueAt == nil || g.Due != nil && g.Due.At.Equal(*r.DueAt))
	if current && g.Lease.Live(r.Now) {
		return fmt.Errorf("leasing grant %s: %w", r.GrantID, &LeasedError{Until: g.Lease.Until})
	}
	return fmt.Errorf("leasing grant %s: %w", r.GrantID, ErrStale)
}

// ClearOutbox removes the outbox of a grant if the document still has the
// revision of g, and records which stream holds the schedule, empty for none. A
// conflict is no error: whoever changed the grant sends what remains. Calls that
// come while another is under way share one command.
func (s *Store) ClearOutbox(ctx context.Context, g *Grant, stream string) error {
	update := bson.D{{Key: "$unset", Value: bson.D{{Key: "outbox", Value: ""}}}}
	if g.Due != nil && stream != "" {
		update = append(update, bson.E{Key: "$set", Value: bson.D{{Key: "due.stream", Value: stream}}})
	}
	_, err := s.clears.do(ctx, mongo.NewUpdateOneModel().SetFilter(revision(g.ID, g.Rev)).SetUpdate(update))
	if err != nil {
		return fmt.Errorf("clearing the outbox of grant %s: %w", g.ID, err)
	}
	return nil
}

func (s *Store) clearAll(ctx context.Context, updates []mongo.WriteModel) []outcome[struct{}] {
	_, err := s.grants.BulkWrite(ctx, updates, options.BulkWrite().SetOrdered(false))
	return bulkOutcomes(len(updates), err)
}

// Used records that the tokens of the present version of a grant were asked for.
// It is a hint, which a write of the whole grant at the same time may lose.
func (s *Store) Used(ctx context.Context, g *Grant) error {
	_, err := s.grants.UpdateOne(ctx, bson.D{{Key: "_id", Value: g.ID}, {Key: "version", Value: g.Version}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "usedIn", Value: g.Version}}}})
	if err != nil {
		return fmt.Errorf("recording the use of grant %s: %w", g.ID, err)
	}
	return nil
}

func collect[T any](ctx context.Context, cursor *mongo.Cursor, err error, doing string) ([]*T, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	var all []*T
	if err := cursor.All(ctx, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return all, nil
}
