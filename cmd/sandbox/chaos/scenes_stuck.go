package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// Stuck grants come before all others that the reconciler has to repair, and are more than it
// reads at once.
const (
	stuckGrants  = reconcileBatch + 10
	behindGrants = 5
	behindWithin = time.Minute // how long the grants behind them may wait: many passes
)

// fillPage puts grants into the database that the reconciler can't repair: their events go to
// a subject that no stream has or are larger than NATS takes, or the documents are no grants.
// It must repair those behind them all the same.
func (r *run) fillPage(ctx context.Context) (err error) {
	grants := r.mongo.Collection("grants")
	var docs []any
	var ids []string
	add := func(id string, doc any) {
		ids, docs = append(ids, id), append(docs, doc)
	}
	past := time.Now().Add(-time.Hour)
	for i := range stuckGrants {
		id := fmt.Sprintf("stuck-%d", i)
		g := r.expiredGrant(id, past)
		switch {
		case i == 0: // each look at the embedded database reads all of it
			g.Outbox.Events[0].Data = make([]byte, r.nc.MaxPayload()+1)
		case i%3 == 0:
			add(id, bson.M{"_id": id, "user": i, "state": "active", "due": bson.M{"at": past, "stream": ""}, "outbox": bson.M{"since": past}})
			continue
		default:
			g.Outbox.Events[0].Subject = "nobody.collects.this"
		}
		add(id, g)
	}
	behind := map[string]bool{}
	for i := range behindGrants {
		id := fmt.Sprintf("behind-%d", i)
		g := r.expiredGrant(id, past.Add(time.Minute))
		add(id, g)
		behind[g.Outbox.Events[0].ID] = true
	}
	defer func() {
		_, deleteErr := grants.DeleteMany(context.WithoutCancel(ctx), bson.M{"_id": bson.M{"$in": ids}})
		err = errors.Join(err, deleteErr)
	}()
	if _, err := grants.InsertMany(ctx, docs); err != nil {
		return fmt.Errorf("storing stuck grants: %w", err)
	}
	return until(ctx, r.patient(behindWithin), "grants behind a page of stuck ones", func() error {
		if err := r.listener.drain(ctx); err != nil {
			return err
		}
		for id := range behind {
			if r.listener.seen[id] {
				delete(behind, id)
			}
		}
		if len(behind) > 0 {
			return fmt.Errorf("%d of %d not made good", len(behind), behindGrants)
		}
		return nil
	})
}

func (r *run) expiredGrant(id string, since time.Time) *store.Grant {
	since = store.Milli(since)
	purge := since.Add(24 * time.Hour)
	g := &store.Grant{
		ID: id, UserID: id, BrokerType: brokers[0], BrokerName: brokers[0], Accounts: []store.Account{{ID: id, Name: "Account"}},
		State: store.Expired, Reason: events.ReasonRejected, ConnectedAt: since, Version: 1, Rev: 1, PurgeAt: &purge,
	}
	e := events.LifecycleEvent{ID: fmt.Sprintf("%s-%d", id, r.rng.Uint64()), Kind: events.TokenExpired, Time: since, Data: g.Lifecycle(g.Reason)}
	data, err := e.Encode()
	if err != nil {
		panic(err) // all of it is made up here
	}
	g.Outbox = &store.Outbox{Since: since, Events: []store.OutboxEvent{{ID: e.ID, Subject: events.Subjects{}.Lifecycle(e.Kind, id), Data: data}}}
	return g
}
