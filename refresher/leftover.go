package refresher

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/parts"
	"github.com/latchkey/latchkey/store/streams"
)

// What an answer brings and a grant can't use is not dropped. Tokens that belong to no
// account of the grant lie in its sealed set until the next answer. A refresh token
// among them, and an answer that may hold unreadable tokens, become a dead letter; until
// NATS has that it lies in the sealed set, too.

// LeftoverReason is what such a dead letter says of itself.
const LeftoverReason = "an answer of Mesh brought what could not be used; it may hold tokens"

const (
	// maxLeft bounds what waits in a token set for the dead letters, maxSpare the tokens
	// there without an account. What is larger goes to the dead letters at once.
	maxLeft, maxSpare = 1 << 20, 256 << 10
	// mostDoubtful bounds the doubtful answers of a grant in a row: all may be a gateway's.
	mostDoubtful = 3
)

// dropDoubtful drops what is doubtful of an answer if a grant has left that much of late.
func (a *Answer) dropDoubtful(g *store.Grant) {
	if a.Doubtful && g.Doubtful >= mostDoubtful {
		a.Rest = secret.Text{}
		a.Unplaced = slices.DeleteFunc(slices.Clone(a.Unplaced), func(l UnplacedToken) bool { return l.Foreign })
	}
}

// all returns the tokens of an answer, refresh tokens apart from the others.
func (a Answer) all() (refresh, other []secret.Text) {
	refresh, other = append(refresh, a.RefreshToken), append(other, a.AccessToken)
	for _, in := range a.Accounts {
		refresh, other = append(refresh, in.RefreshToken), append(other, in.AccessToken, in.TokenID)
	}
	for _, l := range a.Unplaced {
		if l.Refresh {
			refresh = append(refresh, l.Token)
		} else {
			other = append(other, l.Token)
		}
	}
	return distinct(refresh), distinct(other)
}

// distinct leaves each token in a slice once, and no empty one.
func distinct(tokens []secret.Text) []secret.Text {
	seen := map[secret.Text]bool{{}: true}
	return slices.DeleteFunc(tokens, func(token secret.Text) bool {
		again := seen[token]
		seen[token] = true
		return again
	})
}

// leftover returns the tokens of an answer that are not in a set.
func leftover(a Answer, set store.TokenSet) (refresh, other []secret.Text) {
	used := map[secret.Text]bool{set.RefreshToken: true, set.Interim: true, set.TradeToken: true}
	for _, account := range set.Accounts {
		used[account.AccessToken], used[account.TokenID], used[account.RefreshToken] = true, true, true
	}
	unused := func(tokens []secret.Text) []secret.Text {
		return slices.DeleteFunc(tokens, func(token secret.Text) bool { return used[token] })
	}
	refresh, other = a.all()
	return unused(refresh), unused(other)
}

// rest returns the whole body of an answer as text. binary: it is no text.
func rest(body []byte) (whole secret.Text, binary bool) {
	text, fresh := unpack(body, "")
	if fresh {
		defer clear(text)
	}
	binary = !utf8.Valid(text) && slices.ContainsFunc(text, func(b byte) bool { return b < ' ' && !strings.ContainsRune("\t\r\n", rune(b)) })
	if !utf8.Valid(text) {
		return secret.New("base64: " + base64.StdEncoding.EncodeToString(body)), binary
	}
	return secret.New(string(text)), false
}

// keepRest keeps the rest of an answer without tokens for the grant, before its outcome
// is settled. It returns the grant as stored then.
func (r *Refresher) keepRest(ctx context.Context, g *store.Grant, p pending, with store.TokenSealer) *store.Grant {
	p.Beside = true
	saved := r.keep(ctx, g, p, with)
	if saved == nil {
		return g
	}
	saved = r.ParkLeftovers(ctx, saved)
	if !sameLease(saved, g) || saved.Version != g.Version {
		return g // somebody else's by now, as saving it will show
	}
	return saved
}

// storeLeftovers keeps what an older answer brings, beside the tokens in the set. It writes
// nothing where nothing is new.
func (r *Refresher) storeLeftovers(ctx context.Context, g *store.Grant, tokens store.TokenSet, p pending, with store.TokenSealer) (*store.Grant, error) {
	next, spare, left := g.Clone(), len(tokens.Spare), len(tokens.Leftovers)
	if err := r.addLeftovers(ctx, next, &tokens, p, true); err != nil {
		return nil, err
	}
	if len(tokens.Spare) == spare && len(tokens.Leftovers) == left && next.Doubtful == g.Doubtful {
		return g, nil
	}
	with.SealTo(next, tokens, r.deps.Now(), false)
	return next, r.deps.Store.Save(ctx, next)
}

// addLeftovers puts into a token set what it does not have yet of an answer. What is too large
// for it goes to the dead letters now. beside: an earlier answer is still the newest.
func (r *Refresher) addLeftovers(ctx context.Context, g *store.Grant, set *store.TokenSet, p pending, beside bool) error {
	refresh, other := leftover(p.Answer, *set)
	fresh := slices.DeleteFunc(slices.Clone(refresh), func(token secret.Text) bool { return slices.Contains(set.Spare, token) })
	spare := slices.Concat(refresh, other)
	if beside {
		spare = append(spare, set.Spare...)
	}
	var size int
	set.Spare = nil
	var heavy []secret.Text
	for _, token := range distinct(spare) {
		if size += textSize(token.Reveal()); size <= maxSpare {
			set.Spare = append(set.Spare, token)
		} else if !slices.Contains(fresh, token) {
			heavy = append(heavy, token)
		}
	}
	var bodies []secret.Text
	if !p.Rest.Empty() {
		bodies = append(bodies, p.Rest)
	}
	switch {
	case p.Doubtful && !p.Rest.Empty() && !slices.Contains(set.Leftovers, p.Rest):
		g.Doubtful++
	case !p.Doubtful && !beside:
		g.Doubtful = 0
	}
	if (!p.Beside || p.Rest.Empty()) && len(fresh)+len(heavy) > 0 {
		bodies = append(bodies, deadLetterBody(fresh, heavy))
	}
	size = 0
	for _, body := range set.Leftovers {
		size += textSize(body.Reveal())
	}
	for _, body := range bodies {
		if slices.Contains(set.Leftovers, body) {
			continue
		}
		r.metrics.leftover.WithLabelValues(r.metrics.broker(g.BrokerType)).Inc()
		if size += textSize(body.Reveal()); size > maxLeft {
			if _, err := r.park(ctx, g, body); err != nil {
				return err
			}
			continue
		}
		set.Leftovers = append(set.Leftovers, body)
	}
	g.HasLeftovers = len(set.Leftovers) > 0
	return nil
}

func deadLetterBody(refresh, other []secret.Text) secret.Text {
	encoded, err := encodeSecrets(struct {
		RefreshTokens []secret.Text `json:"refreshTokens,omitempty"`
		Others        []secret.Text `json:"others,omitempty"`
	}{refresh, other})
	if err != nil {
		panic("a struct of strings does not marshal")
	}
	defer clear(encoded)
	return secret.New(string(encoded))
}

func (r *Refresher) park(ctx context.Context, g *store.Grant, body secret.Text) (id string, err error) {
	id = r.deps.NewID()
	plain := []byte(body.Reveal())
	defer clear(plain)
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return id, r.deps.ParkAnswer(ctx, g, id, plain)
}

// parkWhole makes a dead letter of an answer that no token set can hold.
func (r *Refresher) parkWhole(ctx context.Context, g *store.Grant, a Answer) error {
	body := a.Rest
	if body.Empty() {
		body = deadLetterBody(a.all())
	}
	_, err := r.park(ctx, g, body)
	return err
}

// ParkLeftovers makes dead letters of what waits in a grant's token set, and returns the grant
// as stored then. What NATS does not take now stays in the set for the next refresh.
func (r *Refresher) ParkLeftovers(ctx context.Context, g *store.Grant) *store.Grant {
	if !g.HasLeftovers {
		return g
	}
	var letters []string
	next, err := r.parkStored(ctx, g, &letters)
	if err == nil {
		return next
	}
	tracing.Log(ctx, r.deps.Log).Warn("leftovers of an answer could not be parked; they stay sealed with the grant", zap.String("grant", g.ID), zap.Error(err))
	fresh, err := r.deps.Store.Get(ctx, g.ID)
	if errors.Is(err, store.ErrNotFound) || err == nil && fresh.State == store.Revoked {
		// Erased meanwhile: its letters would outlive it.
		_, err := streams.SecureDelete(ctx, r.deps.JetStream, r.deps.Subjects.DeadLetterStream(), r.deps.Subjects.DeadLettersOf(g.ID), func(msg *jetstream.RawStreamMsg) (bool, error) {
			return slices.Contains(letters, msg.Header.Get(jetstream.MsgIDHeader)) || slices.Contains(letters, parts.DescriptionOf(msg)), nil
		})
		if err != nil {
			r.deps.Log.Error("a dead letter of an erased grant can't be erased", zap.String("grant", g.ID), zap.Error(err))
		}
	}
	if fresh == nil {
		return g
	}
	return fresh
}

func (r *Refresher) parkStored(ctx context.Context, g *store.Grant, letters *[]string) (*store.Grant, error) {
	tokens, err := r.Tokens(ctx, g)
	if err != nil {
		return nil, err
	}
	for _, body := range tokens.Leftovers {
		id, err := r.park(ctx, g, body)
		if err != nil {
			return nil, err
		}
		*letters = append(*letters, id)
	}
	with, err := r.deps.Fingerprints.Sealer(ctx, g.UserID)
	if err != nil {
		return nil, err
	}
	next := g.Clone()
	next.HasLeftovers, tokens.Leftovers = false, nil
	with.SealTo(next, tokens, r.deps.Now(), false)
	return next, r.deps.Store.Save(ctx, next)
}
