package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Verdicts is the state of refusals at one broker: which grants were refused since the
// last successful refresh there, and whether refusals may expire grants.
type Verdicts struct {
	// Broker is the key of the broker type.
	Broker string `bson:"_id"`
	// Refused are the grants that were refused in a row, oldest first, at most
	// maxRefused.
	Refused []RefusedGrant `bson:"refused"`
	// HeldSince is since when no refusal there expires a grant. Nil: refusals do.
	HeldSince *time.Time `bson:"heldSince,omitempty"`
	// Decided is an operator's decision; empty: none.
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
	// DecidedHold holds verdicts until the operator releases them.
	DecidedHold Decision = "hold"
	// DecidedRelease does not hold verdicts until a refresh there has succeeded.
	DecidedRelease Decision = "release"
)

const maxRefused = 100

// addRefusal adds a refusal, and holds verdicts if that many grants (0: no number) were
// refused within a time. begins: they were not held before.
func (v *Verdicts) addRefusal(grant string, now time.Time, grants int, within time.Duration) (begins bool) {
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

// RecordRefusal records that a broker refused a grant, and returns the verdicts there. It
// holds them once that many grants (0: no number) were refused in a row within a time.
// begins: they were not held before.
func (s *Store) RecordRefusal(ctx context.Context, broker, grant string, now time.Time, grants int, within time.Duration) (v Verdicts, begins bool, err error) {
	v, err = s.changeVerdicts(ctx, broker, func(v *Verdicts) { begins = v.addRefusal(grant, now, grants, within) })
	return v, begins, err
}

// VerdictsAt returns the verdicts at a broker.
func (s *Store) VerdictsAt(ctx context.Context, broker string) (Verdicts, error) {
	v, err := decodeOne[Verdicts](s.verdicts.FindOne(ctx, byID(broker)), nil, "reading the verdicts at a broker")
	v.Broker = broker
	return v, err
}

// RecordSuccess records that a refresh succeeded at a broker, so that earlier refusals
// were the grants' own. Where nothing was refused it costs one look by id. ended:
// verdicts are no longer held.
func (s *Store) RecordSuccess(ctx context.Context, broker string) (ended bool, err error) {
	before, err := decodeOne[Verdicts](s.verdicts.FindOneAndUpdate(ctx,
		bson.D{{Key: "_id", Value: broker}, {Key: "decided", Value: bson.D{{Key: "$ne", Value: DecidedHold}}}},
		bson.D{
			{Key: "$set", Value: bson.D{{Key: "refused", Value: bson.A{}}}},
			{Key: "$unset", Value: bson.D{{Key: "heldSince", Value: ""}, {Key: "decided", Value: ""}}},
			{Key: "$inc", Value: bson.D{{Key: "rev", Value: int64(1)}}},
		}, options.FindOneAndUpdate().SetReturnDocument(options.Before)), nil, "recording a successful refresh at a broker")
	return err == nil && before.HeldSince != nil, err
}

// Decide records an operator's decision, and returns the verdicts at the broker.
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

// Verdicts returns the brokers at which grants were refused or an operator has
// decided, in the order of their keys.
func (s *Store) Verdicts(ctx context.Context) ([]*Verdicts, error) {
	cursor, err := s.verdicts.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
	all, err := decodeAll[*Verdicts](ctx, cursor, err, "reading the verdicts")
	return slices.DeleteFunc(all, func(v *Verdicts) bool { return len(v.Refused) == 0 && v.HeldSince == nil && v.Decided == "" }), err
}

// changeVerdicts saves a change to the document of a broker. If another worker comes
// between, it changes the document as it is stored then.
func (s *Store) changeVerdicts(ctx context.Context, broker string, change func(*Verdicts)) (v Verdicts, err error) {
	for {
		if v, err = s.VerdictsAt(ctx, broker); err != nil {
			return v, err
		}
		change(&v)
		v.Rev++
		if v.Rev > 1 {
			err = matched(s.verdicts.ReplaceOne(ctx, revision(broker, v.Rev-1), v))
		} else if _, err = s.verdicts.InsertOne(ctx, v); mongo.IsDuplicateKeyError(err) {
			err = ErrConflict
		}
		if !errors.Is(err, ErrConflict) {
			return v, wrap(err, "storing the verdicts at a broker")
		}
	}
}
