package store_test

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// Every query that the store makes is held against the indexes that it declares
// and against a shard key of grants on _id. Tests run where indexes make no
// difference, so nothing else would notice one that reads a whole collection.

// walks are the methods that read more than an index leads them to, and why they
// may. A worker on its own calls none of them but RecordHeartbeat and Tallies.
var walks = map[string]string{
	"ConnectKeys":     "a handful of keys, kept in memory by workers",
	"AuditHeads":      "an operator's: one head for each start of a worker",
	"Keys":            "an operator's walk over all data keys",
	"List":            "an operator's pages: by id, passing over what does not match; by due time, sorted",
	"RecordHeartbeat": "a small document for each worker, every few seconds",
	"Verdicts":        "a document for each broker at which grants were refused",
	"Tallies":         "the operator's page and a worker's metrics, once in a while: the whole index on state and broker",
	"TokenSets":       "an operator's count: the whole index on sealed.key and id",
	"KeyUses":         "an operator's count; the connect keys and the fingerprint key are a handful",
}

// everywhere are the methods that ask all shards, where grants are sharded by
// _id. All others reach one.
var everywhere = []string{
	"ByUser", "ByUserWith", "ByFingerprints", // requests that miss the cache, connects, disconnects
	"OtherStreams", "ScheduledIn", "Overdue", "Unsent", "Purgeable", "Ending", "AccountsDue", "Removals", "WithNothingDue", "DueAfter", "OtherChainKeys", "ChainedBy", // reconciliation
	"Browse", "TallyFailing", "CountDue", "DueBefore", "KeyUses", "List", "SealedUnder", "TokenSets", // operators
	"Tallies", "TallyOverdue", // metrics
	"GrantsBeginning", "UsersBeginning", "BrokersBeginning", // completion
}

// calls call every method of the store that makes a query.
func calls(s *store.Store) map[string]func(context.Context) error {
	g := active("g")
	g.Rev = 1
	key := dataKey("k")
	place := store.Place{At: now, ID: "g"}
	drop := func(_ any, err error) error { return err }
	return map[string]func(context.Context) error{
		"Acquire": func(ctx context.Context) error {
			_, _, err := s.Acquire(ctx, store.LeaseRequest{GrantID: "g", Version: 1, DueAt: &now, Now: now, Until: now})
			return err
		},
		"AddConnectKey": func(ctx context.Context) error { return s.AddConnectKey(ctx, store.ConnectKey{Sequence: 1}) },
		"AuditHeads":    func(ctx context.Context) error { return drop(s.AuditHeads(ctx)) },
		"Browse": func(ctx context.Context) error {
			for _, sel := range []store.Selection{
				{Limit: 1, Reads: 1},
				{State: store.Active, Broker: "b", After: "0,g,b", Limit: 1, Reads: 1},
				{Order: store.InOrderOfDue, DueBefore: now, After: now.Format(time.RFC3339Nano) + ",g", Limit: 1, Reads: 1},
				{Order: store.InOrderOfFailure, After: now.Format(time.RFC3339Nano) + ",g", Limit: 1, Reads: 1},
			} {
				if _, err := s.Browse(ctx, sel); err != nil {
					return err
				}
			}
			return nil
		},
		"ByUser":     func(ctx context.Context) error { return drop(s.ByUser(ctx, "u")) },
		"ByUserWith": func(ctx context.Context) error { return drop(s.ByUserWith(ctx, "u", g)) },
		"Change": func(ctx context.Context) error {
			return drop(s.Change(ctx, g.Clone(), func(g *store.Grant) (*store.Grant, error) { return g, nil }))
		},
		"ChainedBy":        func(ctx context.Context) error { return drop(s.ChainedBy(ctx, "k", "a", 1)) },
		"ClearOutbox":      func(ctx context.Context) error { return s.ClearOutbox(ctx, g, "s") },
		"ConnectKeys":      func(ctx context.Context) error { return drop(s.ConnectKeys(ctx)) },
		"CountDue":         func(ctx context.Context) error { return drop(s.CountDue(ctx, now, now, 10)) },
		"Delete":           func(ctx context.Context) error { return s.Delete(ctx, g) },
		"DeleteConnectKey": func(ctx context.Context) error { return s.DeleteConnectKey(ctx, 1) },
		"DeleteKey":        func(ctx context.Context) error { return s.DeleteKey(ctx, "k") },
		"DueBefore":        func(ctx context.Context) error { return drop(s.DueBefore(ctx, now, 10)) },
		"Get":              func(ctx context.Context) error { return drop(s.Get(ctx, "g")) },
		"ByFingerprints":   func(ctx context.Context) error { return drop(s.ByFingerprints(ctx, []string{"f"})) },
		"Insert":           func(ctx context.Context) error { return s.Insert(ctx, active("new")) },
		"Installation":     func(ctx context.Context) error { return drop(s.Installation(ctx)) },
		"Key":              func(ctx context.Context) error { return drop(s.Key(ctx, "k")) },
		"KeyUses":          func(ctx context.Context) error { return drop(s.KeyUses(ctx, "k")) },
		"Keys": func(ctx context.Context) error {
			for _, err := range s.Keys(ctx, now) {
				return err
			}
			return nil
		},
		"List": func(ctx context.Context) error {
			for _, l := range []store.Listing{
				{State: store.Active, Broker: "b", After: "a", Limit: 1},
				{DueBefore: now, Limit: 1},
				{DueBefore: now, After: now.Format(time.RFC3339Nano) + ",g", Limit: 1},
			} {
				if _, err := s.List(ctx, l); err != nil {
					return err
				}
			}
			return nil
		},
		"AccountsDue":      func(ctx context.Context) error { return drop(s.AccountsDue(ctx, now, place, 1)) },
		"WithNothingDue":   func(ctx context.Context) error { return drop(s.WithNothingDue(ctx, place, 1)) },
		"DueAfter":         func(ctx context.Context) error { return drop(s.DueAfter(ctx, now, place, 1)) },
		"Ending":           func(ctx context.Context) error { return drop(s.Ending(ctx, now, place, 1)) },
		"OtherChainKeys":   func(ctx context.Context) error { return drop(s.OtherChainKeys(ctx, "k")) },
		"OtherStreams":     func(ctx context.Context) error { return drop(s.OtherStreams(ctx, []string{"s"})) },
		"Overdue":          func(ctx context.Context) error { return drop(s.Overdue(ctx, now, place, 1)) },
		"RecordReschedule": func(ctx context.Context) error { return s.RecordReschedule(ctx, g, now) },
		"PurgeAuditHeads":  func(ctx context.Context) error { return s.PurgeAuditHeads(ctx, now) },
		"PurgeRevocations": func(ctx context.Context) error { return s.PurgeRevocations(ctx, now) },
		"Purgeable":        func(ctx context.Context) error { return drop(s.Purgeable(ctx, now, place, 1)) },
		"PutAuditHead":     func(ctx context.Context) error { return s.PutAuditHead(ctx, audit.Head{Chain: "c"}) },
		"PutFingerprintKey": func(ctx context.Context) error {
			return s.PutFingerprintKey(ctx, nil, store.SealedFingerprintKey{ID: "k"})
		},
		"PutKey":               func(ctx context.Context) error { return s.PutKey(ctx, dataKey("k")) },
		"Removals":             func(ctx context.Context) error { return drop(s.Removals(ctx, now, place, 1)) },
		"RememberStream":       func(ctx context.Context) error { return s.RememberStream(ctx, "i") },
		"Rename":               func(ctx context.Context) error { return s.Rename(ctx, "p") },
		"Reseal":               func(ctx context.Context) error { return s.Reseal(ctx, g, envelope.Blob{KeyID: "k"}, now) },
		"Retire":               func(ctx context.Context) error { return s.Retire(ctx, store.Retirement{Before: now}) },
		"RetireUserKeys":       func(ctx context.Context) error { return drop(s.RetireUserKeys(ctx, "u", now)) },
		"Retirement":           func(ctx context.Context) error { return drop(s.Retirement(ctx)) },
		"RecordRevocation":     func(ctx context.Context) error { return s.RecordRevocation(ctx, store.Scope{User: "u"}, now, now) },
		"Revocations":          func(ctx context.Context) error { return drop(s.Revocations(ctx, "u", "b", []string{"a"})) },
		"Rewrap":               func(ctx context.Context) error { return s.Rewrap(ctx, key, []byte("w"), "kek") },
		"SampleKeys":           func(ctx context.Context) error { return drop(s.SampleKeys(ctx, 2)) },
		"Save":                 func(ctx context.Context) error { return s.Save(ctx, g.Clone()) },
		"ScheduledIn":          func(ctx context.Context) error { return drop(s.ScheduledIn(ctx, "s", now, place, 1, 1)) },
		"SealedFingerprintKey": func(ctx context.Context) error { return drop(s.SealedFingerprintKey(ctx)) },
		"SealedUnder":          func(ctx context.Context) error { return drop(s.SealedUnder(ctx, "k", "a", 1)) },
		"SealingKey":           func(ctx context.Context) error { return drop(s.SealingKey(ctx, "scope", now, now)) },
		"RecordStreamsSeen":    func(ctx context.Context) error { return s.RecordStreamsSeen(ctx, "i", now) },
		"ClaimInstallation":    func(ctx context.Context) error { return drop(s.ClaimInstallation(ctx, store.Installation{ID: "i"})) },
		"StreamIdentity":       func(ctx context.Context) error { return drop(s.StreamIdentity(ctx)) },
		"StreamsSeen":          func(ctx context.Context) error { return drop(s.StreamsSeen(ctx)) },
		"SuspectStreams":       func(ctx context.Context) error { return drop(s.SuspectStreams(ctx)) },
		"TallyFailing": func(ctx context.Context) error {
			_, _, err := s.TallyFailing(ctx, 10)
			return err
		},
		"TallyOverdue": func(ctx context.Context) error { return drop(s.TallyOverdue(ctx, now, 10)) },
		"Tallies":      func(ctx context.Context) error { return drop(s.Tallies(ctx)) },
		"TokenSets":    func(ctx context.Context) error { return drop(s.TokenSets(ctx)) },
		"TryWrite":     func(ctx context.Context) error { return s.TryWrite(ctx) },
		"Decide":       func(ctx context.Context) error { return drop(s.Decide(ctx, "b", store.DecidedHold, now)) },
		"RecordRefusal": func(ctx context.Context) error {
			_, _, err := s.RecordRefusal(ctx, "b", "g", now, 3, time.Hour)
			return err
		},
		"RecordHeartbeat": func(ctx context.Context) error { return drop(s.RecordHeartbeat(ctx, store.Heartbeat{Run: "r", N: 1})) },
		"DeleteHeartbeat": func(ctx context.Context) error { return s.DeleteHeartbeat(ctx, store.Heartbeat{Run: "r", N: 1}) },
		"RecordSuccess":   func(ctx context.Context) error { return drop(s.RecordSuccess(ctx, "b")) },
		"Verdicts":        func(ctx context.Context) error { return drop(s.Verdicts(ctx)) },
		"VerdictsAt":      func(ctx context.Context) error { return drop(s.VerdictsAt(ctx, "b")) },
		"RecordSpent":     func(ctx context.Context) error { return s.RecordSpent(ctx, "f", now, now) },
		"RecordAwaited":   func(ctx context.Context) error { return s.RecordAwaited(ctx, "f", now) },
		"RevocationsAndTokenRecord": func(ctx context.Context) error {
			_, _, err := s.RevocationsAndTokenRecord(ctx, "u", "b", []string{"a"}, "f")
			return err
		},
		"RevokedScopes":    func(ctx context.Context) error { return drop(s.RevokedScopes(ctx, []store.Scope{{User: "u"}})) },
		"UserKeys":         func(ctx context.Context) error { return drop(s.UserKeys(ctx, "u")) },
		"GrantsBeginning":  func(ctx context.Context) error { return drop(s.GrantsBeginning(ctx, "g", 1)) },
		"UsersBeginning":   func(ctx context.Context) error { return drop(s.UsersBeginning(ctx, "u", 2)) },
		"BrokersBeginning": func(ctx context.Context) error { return drop(s.BrokersBeginning(ctx, "b", 2)) },
		"Unsent":           func(ctx context.Context) error { return drop(s.Unsent(ctx, now, place, 1)) },
		"RecordUse":        func(ctx context.Context) error { return s.RecordUse(ctx, g) },
	}
}

// unasked are the methods that make no query for documents, and those of tests.
var unasked = []string{"Close", "Ensure", "EnsureInBackground", "EnsureEvery", "InsertAll", "MissingIndexes", "Overridden", "Ping", "Server", "Version"}

func TestEveryQueryHasAnIndexAndAShard(t *testing.T) {
	recorded := &recorder{}
	o := options(t, enginestest.MongoDB(t))
	o.Monitor = &event.CommandMonitor{Started: recorded.started}
	s := connect(t, o)
	require.NoError(t, s.Ensure(t.Context()))

	all := calls(s)
	for method := range reflect.TypeFor[*store.Store]().Methods() {
		if !slices.Contains(unasked, method.Name) {
			require.Contains(t, all, method.Name, "a method of the store that this test does not know")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		recorded.take()
		_ = all[name](t.Context()) // what it finds does not matter
		queries := recorded.take()
		require.NotEmpty(t, queries, "%s makes no query", name)
		scattered := false
		for _, q := range queries {
			scattered = scattered || q.collection == "grants" && !slices.Contains(q.equal, "_id")
			require.True(t, q.collection != "grants" || q.reads || slices.Contains(q.equal, "_id"), "%s writes to grants by other than _id: %v", name, q)
			if _, ok := walks[name]; !ok {
				require.True(t, q.indexed(), "%s has no index: %v", name, q)
			}
		}
		require.Equal(t, slices.Contains(everywhere, name), scattered, "%s asks all shards: %v", name, queries)
	}
	for name := range walks {
		require.Contains(t, all, name)
	}
}

// query is what a command looks for.
type query struct {
	collection string
	reads      bool
	keys       []string // all that the filter names
	equal      []string // those of them that it has equal to something
	sort       []string
	limited    bool
}

// indexed reports whether an index leads to what is looked for, in the order in
// which it is wanted.
func (q query) indexed() bool {
	for _, index := range append(store.DeclaredIndexes()[q.collection], []string{"_id"}) {
		leads := slices.Contains(q.keys, index[0]) || len(q.keys) == 0 && q.limited && len(q.sort) > 0 && q.sort[0] == index[0]
		for len(index) > 0 && slices.Contains(q.equal, index[0]) {
			index = index[1:]
		}
		ordered := len(q.sort) <= len(index) && slices.Equal(q.sort, index[:len(q.sort)])
		if leads && ordered {
			return true
		}
	}
	return false
}

// recorder collects the queries that the driver sends.
type recorder struct {
	mu      sync.Mutex
	queries []query
}

func (r *recorder) take() []query {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queries
	r.queries = nil
	return q
}

func (r *recorder) started(_ context.Context, e *event.CommandStartedEvent) {
	var c struct {
		Filter   bson.D   `bson:"filter"`
		Query    bson.D   `bson:"query"`
		Sort     bson.D   `bson:"sort"`
		Limit    int64    `bson:"limit"`
		Updates  []bson.D `bson:"updates"`
		Deletes  []bson.D `bson:"deletes"`
		Pipeline []bson.D `bson:"pipeline"`
		Inserts  []bson.D `bson:"documents"`
	}
	if err := bson.Unmarshal(e.Command, &c); err != nil {
		panic(err)
	}
	q := query{limited: c.Limit > 0, sort: keysOf(c.Sort)}
	q.collection, _ = e.Command.Lookup(e.CommandName).StringValueOK()
	var filters []bson.D
	switch e.CommandName {
	case "find":
		q.reads, filters = true, []bson.D{c.Filter}
	case "aggregate":
		q.reads, filters = true, []bson.D{value(c.Pipeline[0], "$match").(bson.D)}
	case "findAndModify":
		filters = []bson.D{c.Query}
	case "update", "delete":
		for _, one := range append(c.Updates, c.Deletes...) {
			filters = append(filters, value(one, "q").(bson.D))
		}
	case "insert":
		filters = []bson.D{{{Key: "_id", Value: value(c.Inserts[0], "_id")}}}
	default:
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, filter := range filters {
		q.keys, q.equal = keysOf(filter), nil
		for _, e := range filter {
			if equal(e.Value) {
				q.equal = append(q.equal, e.Key)
			}
		}
		r.queries = append(r.queries, q)
	}
}

// equal reports whether a condition is one on equality, or on one of some.
func equal(condition any) bool {
	operators, ok := condition.(bson.D)
	if !ok {
		_, list := condition.(bson.A) // of an $or
		return !list
	}
	return len(operators) == 1 && operators[0].Key == "$in"
}

func keysOf(d bson.D) []string {
	keys := make([]string, len(d))
	for i, e := range d {
		keys[i] = e.Key
	}
	return keys
}

func value(d bson.D, key string) any {
	for _, e := range d {
		if e.Key == key {
			return e.Value
		}
	}
	panic(fmt.Sprint("no ", key, " in ", d))
}
