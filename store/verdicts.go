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
)

// Verdicts is how refresh tokens fare at one broker: which grants were refused since
// the last refresh there that succeeded, and whether verdicts are held for it. The
// zero value, and a broker without a document, have nothing to tell.
type Verdicts struct {
	// Broker is the key of the broker type.
	Broker string `bson:"_id"`
	// Refused are grants that were refused in a row, oldest first, each once. No more
	// than maxRefused are kept.
	Refused []RefusedGrant `bson:"refused"`
	// HeldSince is since when no grant expires there for a refusal. Nil: they do.
	HeldSince *time.Time `bson:"heldSince,omitempty"`
	// Decided is what an operator has decided; empty: nothing.
	Decided Decision `bson:"decided,omitempty"`
	Rev     int64    `bson:"rev"`
}

// RefusedGrant is a grant whose refresh token was refused.
type RefusedGrant struct {
	Grant string    `bson:"grant"`
	At    time.Time `bson:"at"`
}

// Decision is what an operator decides about the verdicts at a broker.
type Decision string

const (
	// DecidedHold: they are held until he releases them.
	DecidedHold Decision = "hold"
	// DecidedRelease: they are not held, until a refresh there has succeeded.
	DecidedRelease Decision = "release"
)

const maxRefused = 100

// refuse notes a refusal, and holds verdicts if as many grants were refused within a
// time as it takes; 0: it never does. It reports whether it begins to hold them.
func (v *Verdicts) refuse(grant string, now time.Time, grants int, within time.Duration) (begins bool) {
	v.Refused = slices.DeleteFunc(v.Refused, func(r RefusedGrant) bool { return r.Grant == grant || now.Sub(r.At) > within })
	v.Refused = append(v.Refused, RefusedGrant{grant, Milli(now)})
	v.Refused = v.Refused[max(len(v.Refused)-maxRefused, 0):]
	if v.HeldSince != nil || v.Decided == DecidedRelease || grants == 0 || len(v.Refused) < grants {
		return false
	}
	at := Milli(now)
	v.HeldSince = &at
	return true
}

// Refused notes that a grant was refused at a broker, and returns how things are
// there then. begins: verdicts are held from now on, since so many grants were
// refused in a row within a time (0 grants: they never are).
func (s *Store) Refused(ctx context.Context, broker, grant string, now time.Time, grants int, within time.Duration) (v Verdicts, begins bool, err error) {
	v, err = s.changeVerdicts(ctx, broker, func(v *Verdicts) { begins = v.refuse(grant, now, grants, within) })
	return v, begins, err
}

// VerdictsAt returns how things are at a broker.
func (s *Store) VerdictsAt(ctx context.Context, broker string) (v Verdicts, err error) {
	err = s.verdicts.FindOne(ctx, bson.D{{Key: "_id", Value: broker}}).Decode(&v)
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		return v, fmt.Errorf("reading how refresh tokens fare at a broker: %w", err)
	}
	v.Broker = broker
	return v, nil
}

// Succeeded notes that a refresh succeeded at a broker: whoever was refused before
// is on his own. It changes nothing, at the price of one look by id, where nothing
// was refused. ended: verdicts are no longer held for it.
func (s *Store) Succeeded(ctx context.Context, broker string) (ended bool, err error) {
	var before Verdicts
	err = s.verdicts.FindOneAndUpdate(ctx,
		bson.D{{Key: "_id", Value: broker}, {Key: "decided", Value: bson.D{{Key: "$ne", Value: DecidedHold}}}},
		bson.D{
			{Key: "$set", Value: bson.D{{Key: "refused", Value: bson.A{}}}},
			{Key: "$unset", Value: bson.D{{Key: "heldSince", Value: ""}, {Key: "decided", Value: ""}}},
			{Key: "$inc", Value: bson.D{{Key: "rev", Value: int64(1)}}},
		}, options.FindOneAndUpdate().SetReturnDocument(options.Before)).Decode(&before)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("noting a refresh that succeeded at a broker: %w", err)
	}
	return before.HeldSince != nil, nil
}

// Decide records what an operator decides about the verdicts at a broker, and returns
// how things are then.
func (s *Store) Decide(ctx context.Context, broker string, d Decision, now time.Time) (Verdicts, error) {
	return s.changeVerdicts(ctx, broker, func(v *Verdicts) {
		switch v.Decided = d; {
		case d == DecidedRelease:
			v.HeldSince, v.Refused = nil, nil
		case v.HeldSince == nil:
			at := Milli(now)
			v.HeldSince = &at
		}
	})
}

// Verdicts returns the brokers at which grants were refused, or an operator has
// decided something, by their keys.
func (s *Store) Verdicts(ctx context.Context) ([]*Verdicts, error) {
	cursor, err := s.verdicts.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
	all, err := collect[Verdicts](ctx, cursor, err, "reading how refresh tokens fare")
	return slices.DeleteFunc(all, func(v *Verdicts) bool { return len(v.Refused) == 0 && v.HeldSince == nil && v.Decided == "" }), err
}

// changeVerdicts changes the document of a broker, as often as somebody else is quicker.
func (s *Store) changeVerdicts(ctx context.Context, broker string, change func(*Verdicts)) (v Verdicts, err error) {
	for {
		if v, err = s.VerdictsAt(ctx, broker); err != nil {
			return v, err
		}
		rev := v.Rev
		change(&v)
		v.Rev++
		if rev == 0 {
			_, err = s.verdicts.InsertOne(ctx, v)
			if mongo.IsDuplicateKeyError(err) {
				continue
			}
		} else {
			var res *mongo.UpdateResult
			res, err = s.verdicts.ReplaceOne(ctx, bson.D{{Key: "_id", Value: broker}, {Key: "rev", Value: rev}}, v)
			if err == nil && res.MatchedCount == 0 {
				continue
			}
		}
		if err != nil {
			return v, fmt.Errorf("noting how refresh tokens fare at a broker: %w", err)
		}
		return v, nil
	}
}
