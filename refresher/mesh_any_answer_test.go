package refresher_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
)

// TestNoTokenOfAnAnswerIsLost: whatever an answer looks like, each token in it that
// did not go out is in the token set, or in what becomes a dead letter.
func TestNoTokenOfAnAnswerIsLost(t *testing.T) { rapid.Check(t, losesNoToken) }

func FuzzNoTokenOfAnAnswerIsLost(f *testing.F) { f.Fuzz(rapid.MakeFuzz(losesNoToken)) }

func losesNoToken(t *rapid.T) {
	given := meshsimtest.AnyAnswer(t)
	m := must(refresher.NewMesh(refresher.MeshOptions{URL: "http://mesh", Timeout: time.Minute, Now: time.Now}))
	m.Answer(given.Status, given.Body, given.Declared > len(given.Body))
	kept, left := keptOf(m)
	refreshertest.RequireKept(t, given, kept, left.Reveal())
}

// keptOf is what a refresh of a grant with two accounts keeps of an answer, and leaves.
func keptOf(m *refresher.Mesh) (kept []secret.Text, left secret.Text) {
	a, err := m.Refresh(context.Background(), request)
	if err != nil {
		f := refresher.AsFailure(err)
		return []secret.Text{f.Interim, f.RefreshToken}, f.Answer.Rest
	}
	g := newGrant(withAccounts("one", "two"))
	set := newTokens("one", "two")
	set.RefreshToken = request.RefreshToken
	set, err = settler(newClock(sentAt), 0).ApplyAnswer(g, set, a, false, 1, sentAt)
	if err != nil {
		panic(err)
	}
	refresh, other := refresher.Leftover(a, set)
	return slices.Concat(refreshertest.TokensOf(set), refresh, other), a.Rest
}
