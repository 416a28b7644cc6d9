package refresher_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

func TestSupersedes(t *testing.T) {
	current, next := text("current"), text("next")
	for name, c := range map[string]struct {
		grant     func(*store.Grant)
		presented secret.Text
		brought   secret.Text
		epoch     int64
		want      bool
	}{
		"a later epoch":                            {nil, current, next, 6, true},
		"a later epoch that rotated nothing":       {nil, current, secret.Text{}, 6, true},
		"the same epoch, the next link":            {nil, current, next, 5, true},
		"the same epoch":                           {nil, text("older"), next, 5, false},
		"an earlier epoch":                         {nil, text("older"), next, 4, false},
		"an earlier epoch that rotated nothing":    {nil, current, secret.Text{}, 4, false},
		"an earlier epoch that is the next link":   {nil, current, next, 4, true},
		"an earlier epoch that echoes the token":   {nil, current, current, 4, false},
		"a revoked grant takes nothing":            {func(g *store.Grant) { g.State = store.Revoked }, current, next, 6, false},
		"a token that was never the grant's":       {nil, text("foreign"), next, 6, false},
		"connected anew with the token at hand":    {func(g *store.Grant) { g.ConnectedAt = t0.Add(hour) }, current, next, 6, true},
		"an expired grant is revived by an answer": {func(g *store.Grant) { g.State = store.Expired }, current, next, 6, true},
	} {
		g := newGrant(func(g *store.Grant) { g.Applied = 5 })
		if c.grant != nil {
			c.grant(g)
		}
		require.Equal(t, c.want, refresher.Supersedes(g, name != "a token that was never the grant's", current, c.presented, refresher.Answer{RefreshToken: c.brought}, c.epoch), name)
	}
}

// delivery is an answer on its way to the grant.
type delivery struct {
	epoch     int64
	presented secret.Text
	answer    refresher.Answer
}

// record is a grant with its tokens, to which deliveries are applied as the
// database would see it.
type record struct {
	t      *rapid.T
	grant  *store.Grant
	tokens store.TokenSet
}

func (r *record) deliver(d delivery) {
	if d.epoch == r.grant.Applied || !refresher.Supersedes(r.grant, true, r.tokens.RefreshToken, d.presented, d.answer, d.epoch) {
		return
	}
	var err error
	r.tokens, err = settler(newClock(sentAt), 0).ApplyAnswer(r.grant, r.tokens, d.answer, false, d.epoch, sentAt)
	require.NoError(r.t, err)
}

func newRecord(t *rapid.T) *record { return &record{t, newGrant(), newTokens("one")} }

func (r *record) access() string { return r.tokens.Account("one").AccessToken.Reveal() }

func epochAnswer(epoch int64, refresh secret.Text) refresher.Answer {
	return refresher.Answer{
		RefreshToken: refresh,
		Accounts:     []refresher.AnsweredAccount{{ID: "one", AccessToken: text(fmt.Sprint("access-", epoch))}},
	}
}

func TestInAnyOrderTheHighestEpochWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRecord(t)
		var all []delivery
		presented := r.tokens.RefreshToken
		for epoch := range int64(rapid.IntRange(1, 6).Draw(t, "answers")) {
			brought := text(fmt.Sprint("refresh of epoch ", epoch+1))
			all = append(all, delivery{epoch + 1, presented, epochAnswer(epoch+1, brought)})
			if rapid.Bool().Draw(t, "seen before the next call") {
				presented = brought
			}
		}
		twice := append(append([]delivery(nil), all...), all...)
		for _, d := range rapid.Permutation(twice).Draw(t, "order") {
			r.deliver(d)
		}
		last := all[len(all)-1]
		require.Equal(t, last.epoch, r.grant.Applied)
		require.Equal(t, last.answer.RefreshToken.Reveal(), r.tokens.RefreshToken.Reveal())
		require.Equal(t, fmt.Sprint("access-", last.epoch), r.access())
	})
}

// TestTheHoldersTokenIsTheInstitutions plays an institution that takes only
// its current refresh token and replaces it or not, and workers whose answers
// arrive late, twice and in any order.
func TestTheHoldersTokenIsTheInstitutions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRecord(t)
		current, epoch, newest := r.tokens.RefreshToken, int64(0), int64(0)
		var sent []delivery
		t.Repeat(map[string]func(*rapid.T){
			"call": func(t *rapid.T) {
				epoch++
				presented := r.tokens.RefreshToken
				if !presented.Equal(current) {
					return // refused: no answer
				}
				brought := secret.Text{}
				if rapid.Bool().Draw(t, "rotates") {
					brought = text(fmt.Sprint("refresh of epoch ", epoch))
					current = brought
				}
				newest = epoch
				sent = append(sent, delivery{epoch, presented, epochAnswer(epoch, brought)})
			},
			"deliver": func(t *rapid.T) {
				if len(sent) > 0 {
					r.deliver(rapid.SampledFrom(sent).Draw(t, "which"))
				}
			},
		})
		for range 2 {
			if len(sent) > 0 {
				for _, d := range rapid.Permutation(sent).Draw(t, "rest") {
					r.deliver(d)
				}
			}
		}
		require.Equal(t, current.Reveal(), r.tokens.RefreshToken.Reveal())
		require.Equal(t, newest, r.grant.Applied)
		if newest > 0 {
			require.Equal(t, fmt.Sprint("access-", newest), r.access())
		}
	})
}
