package keys_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/cmd/latchkey/keys"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim/kmssimtest"
	"github.com/latchkey/latchkey/events/options/optionstest"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

var now = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

// fixture is a database and a KMS, with data keys and grants.
type fixture struct {
	t      *testing.T
	db     *store.Store
	raw    *mongo.Database
	sim    *kmssim.KMS
	client *kms.Client
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	server, name := enginestest.MongoDB(t), enginestest.Name(t)
	db, err := store.Open(t.Context(), store.Options{URI: secret.New(server.URI()), Database: name, Timeout: 20 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	require.NoError(t, db.Ensure(t.Context()))
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	sim := kmssimtest.Start(t, "alias/a")
	return &fixture{
		t: t, db: db, raw: client.Database(name), sim: sim.KMS,
		client: sim.Client(kmssimtest.Once),
	}
}

func (f *fixture) envelope(at time.Time) *envelope.Envelope {
	f.t.Helper()
	e, err := envelope.New(envelope.Options{KMS: f.client, Store: f.db, KeyID: "alias/a", Now: func() time.Time { return at }})
	require.NoError(f.t, err)
	return e
}

// grant stores a grant whose tokens are sealed under the envelope's data key.
func (f *fixture) grant(e *envelope.Envelope, id string) *store.Grant {
	f.t.Helper()
	g := &store.Grant{ID: id, UserID: "user", BrokerType: "b", State: store.Active, Version: 1, ConnectedAt: now}
	sealer, err := e.Sealer(f.t.Context(), g.UserID)
	require.NoError(f.t, err)
	g.Sealed = store.SealTokens(sealer, store.TokenSet{RefreshToken: secret.New("token of " + id)}, g.Binding())
	require.NoError(f.t, f.db.Insert(f.t.Context(), g))
	return g
}

// requireToken checks what a grant holds, by a fresh envelope.
func (f *fixture) requireToken(id string) *store.Grant {
	f.t.Helper()
	g, err := f.db.Get(f.t.Context(), id)
	require.NoError(f.t, err)
	tokens, err := store.OpenTokens(f.t.Context(), f.envelope(now), g.Sealed, g.Binding())
	require.NoError(f.t, err)
	require.Equal(f.t, "token of "+id, tokens.RefreshToken.Reveal())
	return g
}

func (f *fixture) stored() map[string]envelope.WrappedKey {
	f.t.Helper()
	all := map[string]envelope.WrappedKey{}
	for key, err := range f.db.Keys(f.t.Context(), time.Time{}) {
		require.NoError(f.t, err)
		all[key.ID] = key
	}
	return all
}

// steps counts the steps of a walk.
type steps struct{ total, done int }

func (s *steps) Total(n int) { s.total = n }
func (s *steps) Step()       { s.done++ }

var unlimited = rate.NewLimiter(rate.Inf, 1)

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	f := newFixture(t)
	bounds := keys.Bounds{MaxAge: 24 * time.Hour, CacheAge: time.Hour, Outage: 4 * time.Hour}
	put := func(id string, made time.Time, until time.Time) {
		require.NoError(t, f.db.PutKey(t.Context(), envelope.WrappedKey{ID: id, Wrapped: []byte{1}, KEK: "k", CreatedAt: made, SealsUntil: until}))
	}
	long := now.Add(-1000 * time.Hour)
	put("sealing", now, now.Add(time.Hour))
	put("just over", long, now.Add(-time.Hour))
	put("over", long, now.Add(-time.Hour-time.Millisecond))
	put("legacy sealing", now.Add(-29*time.Hour), time.Time{})
	put("legacy", now.Add(-29*time.Hour-time.Millisecond), time.Time{})
	for _, id := range []string{"grant", "connect key", "letter", "recovery", "nested"} {
		put(id, long, now.Add(-2*time.Hour))
	}
	g := f.grant(f.envelope(now), "g")
	_, err := f.raw.Collection("grants").UpdateOne(t.Context(), bson.D{{Key: "_id", Value: g.ID}}, bson.D{{Key: "$set", Value: bson.D{{Key: "sealed.key", Value: "grant"}}}})
	require.NoError(t, err)
	_, err = f.raw.Collection("connect_keys").InsertOne(t.Context(), bson.D{{Key: "sealed", Value: bson.D{{Key: "key", Value: "connect key"}}}})
	require.NoError(t, err)

	prune := keys.PruneOptions{
		Store: f.db, Bounds: bounds, Now: now, DryRun: true,
		Streams: keys.Streams{DeadLetters: map[string]int{"letter": 2}, Recovery: map[string]int{"recovery": 1}},
	}
	before := f.stored()
	planned, err := run(t, keys.NewPrune, prune)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"over", "legacy", "nested"}, planned.Deleted)
	require.Equal(t, before, f.stored())

	// A parked recovery entry may need any key that was there when it was parked.
	prune.DryRun, prune.Streams.LastRecovery = false, long
	report, err := run(t, keys.NewPrune, prune)
	require.NoError(t, err)
	require.Equal(t, []string{"legacy"}, report.Deleted)
	prune.Streams.LastRecovery = time.Time{}
	report, err = run(t, keys.NewPrune, prune)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"over", "nested"}, report.Deleted)
	why := map[string]string{}
	for _, k := range report.Kept {
		why[k.ID] = k.Why
	}
	require.Equal(t, "grants: 1", why["grant"])
	require.Equal(t, "connect_keys: 1", why["connect key"])
	require.Equal(t, "dead letters: 2", why["letter"])
	require.Equal(t, "recovery entries: 1", why["recovery"])
	for _, id := range []string{"sealing", "just over", "legacy sealing"} {
		require.Contains(t, why[id], "in use until ", id)
	}
	require.Len(t, f.stored(), len(before)-3)
}

// meddling is a KMS in whose calls something else happens first.
type meddling struct {
	keys.KMS
	before func(*kms.ReEncryptInput)
}

func (m meddling) ReEncrypt(ctx context.Context, in *kms.ReEncryptInput, opts ...func(*kms.Options)) (*kms.ReEncryptOutput, error) {
	m.before(in)
	return m.KMS.ReEncrypt(ctx, in, opts...)
}

func TestRewrapGoesOnWhereItWas(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"a", "b", "c", "d"} {
		f.grant(f.envelope(now), id)
	}
	broken := f.grant(f.envelope(now), "broken")
	old := f.stored()
	key := old[broken.Sealed.KeyID]
	wrong := append([]byte{}, key.Wrapped...)
	wrong[len(wrong)-1] ^= 1
	require.NoError(t, f.db.Rewrap(t.Context(), key, wrong, key.KEK))
	next, err := f.sim.CreateKey("alias/next")
	require.NoError(t, err)
	shown := &steps{}
	calls := 0
	rewrap := keys.RewrapOptions{Store: f.db, Region: "us-east-1", To: "alias/next", Limit: unlimited, Progress: shown}
	rewrap.KMS = meddling{f.client, func(*kms.ReEncryptInput) {
		if calls++; calls == 3 {
			f.sim.Faults().Next(1, kmssim.ServiceUnavailable, "ReEncrypt")
		}
	}}
	_, err = run(t, keys.NewRewrap, rewrap)
	require.ErrorContains(t, err, "ServiceUnavailable")
	require.Equal(t, 5, shown.total)
	require.Equal(t, 2, shown.done)

	// Somebody else does the same.
	var changed string
	rewrap.KMS = meddling{f.client, func(in *kms.ReEncryptInput) {
		id := in.SourceEncryptionContext["data-key"]
		if changed == "" && id != broken.Sealed.KeyID {
			changed = id
			now := f.stored()[id]
			out, err := f.client.ReEncrypt(t.Context(), in)
			require.NoError(t, err)
			require.NoError(t, f.db.Rewrap(t.Context(), now, out.CiphertextBlob, next))
		}
	}}
	report, err := run(t, keys.NewRewrap, rewrap)
	require.NoError(t, err)
	require.Len(t, report.Failed, 1)
	require.Equal(t, broken.Sealed.KeyID, report.Failed[0].ID)
	require.Equal(t, 1, report.Changed)
	rewrap.KMS = f.client
	report, err = run(t, keys.NewRewrap, rewrap)
	require.NoError(t, err)
	require.Equal(t, next, report.To)
	require.Equal(t, []int{0, 4, 0, 1}, []int{report.Rewrapped, report.Already, report.Changed, len(report.Failed)})
	for id, key := range f.stored() {
		if id != broken.Sealed.KeyID {
			require.Equal(t, next, key.KEK)
			require.Equal(t, old[id].CreatedAt, key.CreatedAt)
			require.Equal(t, old[id].SealsUntil, key.SealsUntil)
		}
	}
	from := aws.String(old[broken.Sealed.KeyID].KEK)
	_, err = f.client.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: from})
	require.NoError(t, err)
	for _, id := range []string{"a", "b", "c", "d"} {
		f.requireToken(id)
	}
}

func TestRewrapKnowsAMultiRegionKey(t *testing.T) {
	f := newFixture(t)
	made, err := f.client.CreateKey(t.Context(), &kms.CreateKeyInput{MultiRegion: aws.Bool(true)})
	require.NoError(t, err)
	f.grant(f.envelope(now), "a")
	rewrap := keys.RewrapOptions{Store: f.db, KMS: f.client, Region: "us-east-1", To: *made.KeyMetadata.Arn, Limit: unlimited, Progress: &steps{}}
	_, err = run(t, keys.NewRewrap, rewrap)
	require.NoError(t, err)
	for _, key := range f.stored() { // as another Region has stored it
		require.NoError(t, f.db.Rewrap(t.Context(), key, key.Wrapped, envelope.RegionalARN(key.KEK, "eu-central-1")))
	}
	report, err := run(t, keys.NewRewrap, rewrap)
	require.NoError(t, err)
	require.Equal(t, 1, report.Already)
	rewrap.All = true
	report, err = run(t, keys.NewRewrap, rewrap)
	require.NoError(t, err)
	require.Equal(t, 1, report.Rewrapped)
	f.requireToken("a")
}

// run builds what has a Run method of these options, and runs it.
func run[O, R any, T interface {
	Run(ctx context.Context) (R, error)
}](t *testing.T, build func(O) (T, error), o O) (R, error) {
	t.Helper()
	made, err := build(o)
	require.NoError(t, err)
	return made.Run(t.Context())
}

func TestEveryRequiredOptionIsNamed(t *testing.T) {
	db, env := &store.Store{}, &envelope.Envelope{}
	optionstest.Required(t, keys.NewPrune, keys.PruneOptions{Store: db, Bounds: keys.Bounds{MaxAge: time.Hour}, Now: now}, "Store", "Bounds", "Now")
	optionstest.Required(t, keys.NewRewrap, keys.RewrapOptions{Store: db, KMS: meddling{}, To: "alias/next", Limit: unlimited, Progress: &steps{}}, "Store", "KMS", "To", "Limit", "Progress")
	optionstest.Required(t, keys.NewReseal, keys.ResealOptions{Store: db, Envelope: env, Now: time.Now, Limit: unlimited, Progress: &steps{}}, "Store", "Envelope", "Now", "Limit", "Progress")
}
