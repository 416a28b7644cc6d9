package worker_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

// shownKey is a data key as the command line shows it.
type shownKey struct {
	ID, KEK     string
	CreatedAt   time.Time
	Seals       bool
	TokenSets   int
	DeadLetters int
}

func (o *onCall) dataKeys() (byID map[string]shownKey) {
	o.t.Helper()
	var keys []shownKey
	require.NoError(o.t, json.Unmarshal([]byte(o.ok("keys", "status", "--keys", "-o", "json")), &keys))
	byID = map[string]shownKey{}
	for _, key := range keys {
		byID[key.ID] = key
	}
	return byID
}

// kms is a client of the simulated KMS, as a worker has it.
func (h *harness) kms() *kms.Client {
	h.t.Helper()
	cfg, err := h.stack.Config()
	require.NoError(h.t, err)
	client, err := worker.KMS(h.ctx, cfg.KMS)
	require.NoError(h.t, err)
	return client
}

// set changes a grant behind everybody's back.
func (h *harness) set(grantID string, change bson.D) {
	h.t.Helper()
	res, err := h.mongo().Database(h.database).Collection("grants").UpdateOne(h.ctx, bson.D{{Key: "_id", Value: grantID}}, bson.D{{Key: "$set", Value: change}})
	require.NoError(h.t, err)
	require.EqualValues(h.t, 1, res.ModifiedCount)
}

// Data keys are rotated while two workers refresh: first what wraps them, then
// what they seal.
func TestKeysAreRotatedWhileWorkersRefresh(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"quick": {AccessLifetime: 3 * time.Second, RefreshLifetime: life}})
	o := &onCall{harness: h}
	settings := []string{"LATCHKEY_DATA_KEYS_CACHE_AGE=1s", "LATCHKEY_REFRESH_ACCESS_TOKEN_SHARE=0.3"}
	h.worker(settings...)
	h.worker(settings...)
	var users []string
	for i := range 12 {
		user := fmt.Sprint("quick-", i)
		h.publishConnected(user, h.issue("quick", user), time.Time{})
		users = append(users, user)
	}
	for _, user := range []string{"resting", "broken", "leased"} {
		h.publishConnected(user, h.issue("coinbase", user), time.Time{})
		users = append(users, user)
	}
	h.publish(h.subjects.Connected(), "not JSON")
	h.deadLetters(1)
	for _, user := range users {
		h.event(events.TokenStored, user)
	}
	h.handled()
	grantOf := func(user string) string { return h.grants(user)[0].ID }
	broken, leased := h.grants("broken")[0], grantOf("leased")
	changed := append([]byte{}, broken.Sealed.Data...)
	changed[len(changed)-1] ^= 1
	h.set(broken.ID, bson.D{{Key: "sealed.data", Value: changed}})

	before := o.dataKeys()
	sets, letters := 0, 0
	for _, key := range before {
		require.True(t, key.Seals)
		sets, letters = sets+key.TokenSets, letters+key.DeadLetters
	}
	require.Equal(t, []int{len(users), 1}, []int{sets, letters})
	old, err := h.stack.KMS.CreateKey(stack.KeyAlias)
	require.NoError(t, err)
	require.Regexp(t, fmt.Sprintf(`(?m)^%s +[1-9]\d* +%d$`, old, len(users)), o.ok("keys", "status"))
	require.Regexp(t, `(?m)^[0-9a-f]{32} +\S+ +until \S+ +\d+ +\d+ +0 +arn:aws:kms:`, o.ok("keys", "status", "--keys"))

	// The alias names another KMS key: new data keys go under it, and those that
	// there are follow.
	next, err := h.stack.KMS.CreateKey("alias/next")
	require.NoError(t, err)
	_, err = h.kms().UpdateAlias(h.ctx, &kms.UpdateAliasInput{AliasName: aws.String(stack.KeyAlias), TargetKeyId: &next})
	require.NoError(t, err)
	// Workers make data keys all the while.
	require.Regexp(t, fmt.Sprintf(`rewrapped [1-9]\d* data keys to %s; \d+ were`, next), o.ok("keys", "rewrap"))
	none := regexp.MustCompile(fmt.Sprintf(`rewrapped 0 data keys to %s; [1-9]\d* were`, next))
	h.eventually(func() bool { return none.MatchString(o.ok("keys", "rewrap", "--rate", "0")) }, "there is always one more")
	require.Regexp(t, `rewrapped [1-9]\d* data keys`, o.ok("keys", "rewrap", "--all", "--to", next))
	for id, key := range o.dataKeys() {
		require.Equal(t, next, key.KEK, id)
	}
	require.Contains(t, o.fails("keys", "rewrap", "--to", "alias/none"), "NotFoundException")
	_, err = h.kms().DisableKey(h.ctx, &kms.DisableKeyInput{KeyId: &old})
	require.NoError(t, err, "nothing needs it any more")
	h.get(events.TokenRequest{UserID: "resting"})

	// A grant in somebody's hands is left alone, and what does not open is left
	// as it is. Both are told.
	h.set(leased, bson.D{{Key: "lease", Value: bson.D{{Key: "owner", Value: "somebody"}, {Key: "until", Value: time.Now().Add(time.Hour)}}}})
	reseal := func(want int, args ...string) (report struct {
		Before     time.Time
		Continued  bool
		Resealed   int
		Busy       []string
		Unreadable []struct{ ID string }
	},
	) {
		t.Helper()
		code, stdout, stderr := o.run(append([]string{"keys", "reseal", "-o", "json"}, args...)...)
		require.Equal(t, want, code, stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), &report))
		return report
	}
	first := reseal(cli.ExitFailed, "--patience", "0s")
	require.False(t, first.Continued)
	require.Contains(t, first.Busy, leased)
	require.Len(t, first.Unreadable, 1)
	require.Equal(t, broken.ID, first.Unreadable[0].ID)
	require.Equal(t, broken.Rev, h.grants("broken")[0].Rev)

	h.set(leased, bson.D{{Key: "lease", Value: nil}})
	second := reseal(cli.ExitFailed)
	require.True(t, second.Continued)
	require.True(t, first.Before.Equal(second.Before))
	require.Empty(t, second.Busy)
	require.Len(t, second.Unreadable, 1)
	sealedWith := map[string]string{} // read first: workers make data keys all the while
	for _, user := range users {
		sealedWith[user] = h.grants(user)[0].Sealed.KeyID
	}
	keys := o.dataKeys()
	for user, id := range sealedWith {
		require.Contains(t, keys, id, user)
		require.Equal(t, user == "broken", keys[id].CreatedAt.Before(second.Before), user)
	}
	require.Len(t, h.eventsOf("", "resting"), 1, "no event tells of it")
	require.EqualValues(t, 1, h.grants("resting")[0].Version)
	for id := range before {
		require.False(t, keys[id].Seals)
	}

	// The next one begins anew, and the workers are none the wiser.
	h.disconnect("broken", "", "")
	h.event(events.TokenRevoked, "broken")
	h.eventually(func() bool { return len(h.grants("broken")) == 0 }, "the grant goes")
	third := reseal(cli.ExitOK, "--rate", "0")
	require.False(t, third.Continued)
	require.True(t, third.Before.After(second.Before))
	require.Equal(t, first.Resealed+second.Resealed+third.Resealed, strings.Count(o.ok("audit", "list", "--action", "sealed", "-o", "json"), `"outcome":"reseal"`))
	require.Contains(t, o.ok("keys", "prune", "--dry-run"), "would delete 0 data keys")
	require.Contains(t, o.ok("keys", "prune"), ": in use until ")

	for i := range 12 {
		user := users[i]
		n := len(h.eventsOf(events.TokenRefreshed, user))
		h.nth(events.TokenRefreshed, user, n+1)
		// Tokens here live so briefly that one may end on its way.
		h.eventually(func() bool {
			reply := h.given(events.TokenRequest{UserID: user, MinTTLSeconds: new(int64)})
			valid, _ := h.stack.Mesh.AccessTokenState(reply.AccessTokens[0].AccessToken)
			return valid
		}, "no valid token is given")
	}
	h.given(h.refusing(events.TokenRequest{UserID: "leased"}))
	require.NoError(t, h.stack.Mesh.WaitIdle(h.ctx))
	require.Empty(t, h.stack.Mesh.Ledger().DoubleSpends())
	require.Empty(t, h.stack.Mesh.Ledger().ReplacedPresented())
	for _, user := range users[:12] {
		require.Empty(t, h.eventsOf(events.TokenExpired, user))
	}
}
