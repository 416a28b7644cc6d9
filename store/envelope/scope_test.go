package envelope_test

import (
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store/envelope"
)

func sealFor(t testing.TB, e *envelope.Envelope, user string) envelope.Blob {
	t.Helper()
	s, err := e.Sealer(t.Context(), user)
	require.NoError(t, err)
	return s.Seal([]byte("x"), binding)
}

func TestUsersShareADataKey(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	shared := sealFor(t, e, "").KeyID
	for _, user := range users {
		require.Equal(t, shared, sealFor(t, e, user).KeyID)
	}
	require.Equal(t, 1, f.generated())
	for _, key := range f.keys.All() {
		require.Empty(t, key.Scope)
	}
}

func TestWorkersShareTheKeyOfAUser(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.PerUser = true
	a, b := newEnvelope(o), newEnvelope(o)
	first := sealFor(t, a, "alice")
	require.Equal(t, first.KeyID, sealFor(t, b, "alice").KeyID)
	require.NotEqual(t, first.KeyID, sealFor(t, b, "bob").KeyID)
	require.NotEqual(t, sealFor(t, a, "").KeyID, sealFor(t, b, "").KeyID, "of nobody")
	require.Equal(t, []int{4, 1}, []int{f.generated(), f.decrypted()})
	key := f.keys.All()[first.KeyID]
	require.Equal(t, envelope.ScopeOf("alice"), key.Scope)
	require.NotContains(t, key.Scope, "alice")
	require.Equal(t, key.CreatedAt.Add(24*time.Hour+outage), key.SealsUntil)

	// A key that is used up is not taken again, by whoever knows.
	o.MaxSets = 2
	c := newEnvelope(o)
	require.Equal(t, first.KeyID, sealFor(t, c, "alice").KeyID)
	require.Equal(t, first.KeyID, sealFor(t, c, "alice").KeyID)
	second := sealFor(t, c, "alice")
	require.NotEqual(t, first.KeyID, second.KeyID)

	// Nor is one that is past its age, or does not open.
	f.clock.Advance(24 * time.Hour)
	third := sealFor(t, newEnvelope(o), "alice")
	require.NotContains(t, []string{first.KeyID, second.KeyID}, third.KeyID)
	broken := f.keys.All()[third.KeyID]
	broken.Wrapped = append([]byte{}, broken.Wrapped...)
	broken.Wrapped[len(broken.Wrapped)-1] ^= 1
	f.keys.Put(broken)
	fourth := sealFor(t, newEnvelope(o), "alice")
	require.NotEqual(t, third.KeyID, fourth.KeyID)

	// And while KMS is away there is no key for whom none is at hand.
	f.sim.Faults().Always(kmssim.Disconnect)
	d := newEnvelope(o)
	for _, user := range []string{"alice", "carol"} {
		_, err := d.Sealer(t.Context(), user)
		require.ErrorIs(t, err, envelope.ErrKMS)
	}
}

// An erasure retires the keys of a user; workers that have one in memory notice.
func TestAUsersKeyThatWasRetiredInTheStore(t *testing.T) {
	for name, retire := range map[string]func(*fixture, string){
		"retired": func(f *fixture, id string) {
			key := f.keys.All()[id]
			key.SealsUntil = f.clock.Now()
			f.keys.Put(key)
		},
		"deleted": func(f *fixture, id string) { f.keys.Remove(id) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			o := f.options()
			o.PerUser = true
			e := newEnvelope(o)
			first := sealFor(t, e, "alice").KeyID
			retire(f, first)
			f.clock.Advance(time.Minute - time.Millisecond)
			require.Equal(t, first, sealFor(t, e, "alice").KeyID)
			f.clock.Advance(time.Millisecond)
			f.sim.Faults().Always(kmssim.Disconnect)
			_, err := e.Sealer(t.Context(), "alice")
			require.ErrorIs(t, err, envelope.ErrKMS, "an outage of KMS does not make it seal again")
			f.sim.Faults().Clear()
			f.clock.Advance(time.Minute)
			require.NotEqual(t, first, sealFor(t, e, "alice").KeyID)
		})
	}
}

func TestAUsersKeyGoesOnWhileTheStoreCantTell(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.PerUser = true
	e := newEnvelope(o)
	first := sealFor(t, e, "alice").KeyID
	f.clock.Advance(time.Minute)
	f.keys.FailWith(errors.New("away"))
	require.Equal(t, first, sealFor(t, e, "alice").KeyID)
}

func TestKeysForSealingAreBounded(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.PerUser, o.CacheSize = true, 10
	e := newEnvelope(o)
	for _, user := range users[:50] {
		sealFor(t, e, user)
	}
	collect(t, e, 10)
}

func TestRetiredKeysSealNoMore(t *testing.T) {
	f := newFixture(t)
	for _, perUser := range []bool{false, true} {
		o := f.options()
		o.PerUser = perUser
		e := newEnvelope(o)
		first := seal(t, e, "x")
		f.clock.Advance(time.Minute)
		e.RetireBefore(f.keys.All()[first.KeyID].CreatedAt)
		require.Equal(t, first.KeyID, seal(t, e, "x").KeyID, "it was not made before")

		// By a clock that is ahead: what is made now counts as new all the same.
		at := f.clock.Now().Add(time.Hour)
		e.RetireBefore(at)
		e.RetireBefore(time.Time{})
		second := seal(t, e, "x")
		require.NotEqual(t, first.KeyID, second.KeyID)
		require.Equal(t, at, f.keys.All()[second.KeyID].CreatedAt)
		require.Equal(t, second.KeyID, seal(t, e, "x").KeyID)
		requireOpens(t, e, first, "x")

		other := newEnvelope(o) // has not heard of it, and learns it before it makes a key
		other.RetireBefore(at)
		third := seal(t, other, "x")
		require.Equal(t, perUser, third.KeyID == second.KeyID)
	}
}

// Where KMS can't be reached, a retired key does not go on.
func TestARetiredKeyIsNotBridged(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	seal(t, e, "x")
	f.sim.Faults().Always(kmssim.Disconnect)
	f.clock.Advance(time.Second)
	e.RetireBefore(f.clock.Now())
	_, err := e.Sealer(t.Context(), "user")
	require.ErrorIs(t, err, envelope.ErrKMS)
}

func TestAnAliasPointedElsewhere(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	old := seal(t, e, "x")
	next, err := f.sim.CreateKey("alias/next")
	require.NoError(t, err)
	_, err = f.client.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: aws.String(alias), TargetKeyId: &next})
	require.NoError(t, err)
	f.clock.Advance(24 * time.Hour)
	fresh := seal(t, e, "y")
	require.Equal(t, next, f.keys.All()[fresh.KeyID].KEK)
	require.NotEqual(t, next, f.keys.All()[old.KeyID].KEK)
	requireOpens(t, e, old, "x")
	requireOpens(t, f.envelope(), old, "x")
	requireOpens(t, f.envelope(), fresh, "y")
}

func TestAReplicaOpensInItsRegion(t *testing.T) {
	f := newFixture(t)
	made, err := f.client.CreateKey(t.Context(), &kms.CreateKeyInput{MultiRegion: aws.Bool(true)})
	require.NoError(t, err)
	o := f.options()
	o.KeyID = *made.KeyMetadata.Arn
	here := newEnvelope(o)
	blob := seal(t, here, "x")

	sim, err := kmssim.Open(kmssim.Options{Dir: t.TempDir(), Region: "eu-central-1", AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: secret.New("example")})
	require.NoError(t, err)
	server := httptest.NewServer(sim)
	defer server.Close()
	o.KMS = kms.NewFromConfig(sim.Config(server.URL), func(o *kms.Options) { o.RetryMaxAttempts = 1 })
	o.Region = "eu-central-1"
	o.KeyID = envelope.RegionalARN(o.KeyID, o.Region)
	there := newEnvelope(o)
	_, err = there.Open(t.Context(), blob, binding)
	require.ErrorIs(t, err, envelope.ErrKMS, "there is no replica yet")
	require.ErrorContains(t, err, "NotFoundException")
	_, err = f.sim.Replicate(*made.KeyMetadata.Arn, sim)
	require.NoError(t, err)
	f.clock.Advance(pause)
	requireOpens(t, there, blob, "x")
	back := seal(t, there, "y")
	require.Contains(t, f.keys.All()[back.KeyID].KEK, "eu-central-1")
	o = f.options()
	o.Region = "us-east-1"
	requireOpens(t, newEnvelope(o), back, "y")
}

func TestRegionalARN(t *testing.T) {
	const (
		multi  = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
		single = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	)
	require.Equal(t, "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab", envelope.RegionalARN(multi, "eu-central-1"))
	for _, kek := range []string{single, "alias/mrk-x", "mrk-1234", ""} {
		require.Equal(t, kek, envelope.RegionalARN(kek, "eu-central-1"))
	}
	require.Equal(t, multi, envelope.RegionalARN(multi, ""))
}
