package refresher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
)

// An institution may answer a refresh with an interim access token and a demand for a code
// that it sends to the user (@meshconnect/node-api 2.0.28: BrokerRefreshTokenResponse with
// status mfaRequired). A second request with both completes the refresh. The code, from a
// caller who knows the user, is neither stored nor logged.

const (
	// assumedInterimLifetime is how long a code is accepted where Mesh states no lifetime of the interim token.
	assumedInterimLifetime = time.Hour
	// maxCodes bounds the refused codes: institutions lock out users who guess.
	maxCodes = 5
	// maxInterim bounds an interim access token, which is stored beside the others.
	maxInterim = 64 << 10
)

var (
	// ErrNoStep: no refresh of the grant waits for a code.
	ErrNoStep = errors.New("no refresh of the grant waits for a code")
	// ErrCodeLate: the time in which the code could be presented is over.
	ErrCodeLate = errors.New("the code comes too late")
	// ErrCodeRefused: the institution did not take the code. Unless too many were
	// refused, another may be presented.
	ErrCodeRefused = errors.New("the institution does not take the code")
	// ErrCodeExpired is an ErrCodeRefused for which Mesh says that the code has expired.
	ErrCodeExpired = fmt.Errorf("%w: it has expired", ErrCodeRefused)
)

// refusedCode says why a code was refused, as far as errorType names it.
func refusedCode(f *Failure) error {
	if strings.Contains(strings.ToLower(f.ErrorType), "expired") {
		return ErrCodeExpired
	}
	return ErrCodeRefused
}

// interim returns the new access token of an answer that demands a code, and its lifetime.
func (a Answer) interim(presented secret.Text) (secret.Text, time.Duration) {
	for _, in := range slices.Concat(a.Accounts, []AnsweredAccount{{AccessToken: a.AccessToken}}) {
		token := in.AccessToken
		if !token.Empty() && !token.Equal(presented) && len(token.Reveal()) <= maxInterim {
			return token, a.ExpiresIn
		}
	}
	return secret.Text{}, 0
}

// demanding is the answer in a demand for a code, for a grant that no longer waits for it.
func (f *Failure) demanding() Answer {
	a := Answer{RefreshToken: f.RefreshToken}
	if !f.Interim.Empty() {
		a.Unplaced = []UnplacedToken{{Token: f.Interim}}
	}
	return a
}

// chooseRefreshToken picks the grant's own refresh token of those that came with a
// demand for a code. One of another grant stays in the rest of the answer.
func (f *Failure) chooseRefreshToken(g *store.Grant, tokens *store.TokenSet, key store.FingerprintKey) {
	if f.RefreshToken.Empty() {
		return
	}
	own := whose(g, tokens, f.MFAAnswer.unspent(g, tokens.RefreshToken, key)).refreshToken
	if f.Answer.Rest.Empty() && !own.Equal(f.RefreshToken) {
		f.Answer.Rest, f.Answer.Doubtful = deadLetterBody([]secret.Text{f.RefreshToken}, nil), false
	}
	f.RefreshToken = own
}

// CompleteMFA completes a refresh of a grant with a code of its user. It returns the grant
// as stored then; nil: the answer is on its way into the database. The errors are
// ErrNoStep, ErrCodeLate, ErrCodeRefused, ErrCodeExpired, those of Now, and a *Failure
// that says nothing about the code.
func (r *Refresher) CompleteMFA(ctx context.Context, g *store.Grant, code secret.Text) (*store.Grant, error) {
	r.underWay.Add(1)
	defer r.underWay.Done()
	if g.State != store.MustAct || g.MFA == nil {
		return nil, ErrNoStep
	}
	if !r.deps.Now().Before(g.MFA.Until) {
		return nil, ErrCodeLate
	}
	done, err := r.queue.Enter(ctx, g.BrokerType, Urgency{}) // a person is waiting
	if err != nil {
		return nil, err
	}
	turn := &permit{done}
	defer turn.unused()
	sealer, err := r.sealer(ctx, g.ID, g.UserID)
	if err != nil {
		return nil, err
	}
	leased, takenOver, err := r.acquire(ctx, store.LeaseRequest{GrantID: g.ID, Version: g.Version})
	if err != nil {
		return nil, err
	}
	tokens, opened := r.Tokens(ctx, leased)
	leased, ours, err := r.applyEarlierAnswers(ctx, leased, takenOver)
	if err == nil && !ours {
		err = store.ErrStale
	}
	if err != nil {
		return nil, err
	}
	if opened == nil && tokens.Interim.Empty() {
		opened = ErrNoStep
	}
	if opened != nil {
		turn.unused()
		next := leased.Clone()
		next.Lease = nil
		if _, err := r.commitState(ctx, leased, next); err != nil {
			return nil, errors.Join(opened, err)
		}
		return nil, opened
	}
	return r.call(ctx, leased, tokens, code, sealer, turn)
}

// awaitCode stores the tokens of an answer that demands a code, and announces that the
// user must act. p is that answer, to be kept if it can't be stored so. coded: a code had
// been presented, and was refused. nil: the tokens are on their way into the database.
func (r *Refresher) awaitCode(ctx context.Context, g *store.Grant, tokens store.TokenSet, f *Failure, p pending, coded bool, with store.TokenSealer) (*store.Grant, error) {
	refused := error(nil)
	if coded {
		refused = refusedCode(f)
	}
	rev := g.Rev
	next, err := r.underLease(ctx, g, func(next *store.Grant) (err error) {
		if next.Rev != rev { // something else about it has changed
			if tokens, err = r.Tokens(ctx, next); err != nil {
				return err
			}
		}
		return r.await(next, tokens, f, coded, with)
	})
	if err == nil {
		tracing.Log(ctx, r.deps.Log).Warn("a refresh waits for a code of the user", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int64("version", next.Version))
		r.sendState(ctx, g, next)
		return next, refused
	}
	// The database is away, or the grant is another by now: keep it like any answer.
	kept := r.keep(ctx, g, p, with)
	if kept != nil {
		kept = r.finish(ctx, kept, false)
	}
	return kept, refused
}

// await has a grant wait for a code, with the tokens that came with the demand.
func (r *Refresher) await(g *store.Grant, tokens store.TokenSet, f *Failure, coded bool, with store.TokenSealer) error {
	now := store.Milli(r.deps.Now())
	tokens = cloneTokens(tokens)
	refused := 0
	if coded && g.MFA != nil {
		refused = g.MFA.Refused + 1
	}
	if !f.Interim.Empty() {
		g.MFA, tokens.Interim = &store.MFA{Until: now.Add(cmp.Or(f.InterimLifetime, assumedInterimLifetime))}, f.Interim
	}
	if g.MFA != nil {
		g.MFA.Refused = refused
	}
	if refused >= maxCodes {
		g.MFA = nil
	}
	if !f.RefreshToken.Empty() {
		tokens.RefreshToken = f.RefreshToken
		g.Applied = max(g.Applied, g.Epoch)
	}
	g.Version++
	with.SealTo(g, tokens, now, false)
	return r.deps.Settler.ApplyFailure(g, f)
}

// storeCodeFailure stores the outcome of a code that brought no tokens. What Mesh then says
// about the token is said about the code: the grant stays as it is.
func (r *Refresher) storeCodeFailure(ctx context.Context, g *store.Grant, f *Failure) (*store.Grant, error) {
	tracing.Log(ctx, r.deps.Log).Warn("a code did not complete a refresh", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("class", string(f.Class)),
		zap.Bool("ambiguous", f.Ambiguous), zap.String("detail", f.Detail), zap.NamedError("cause", f.Err))
	refused := f.Class == MustAct || f.Class == Dead || f.Class == BadRequest
	next := g.Clone()
	next.Lease = nil
	if f.Ambiguous && next.Unknown == nil {
		next.Unknown = new(store.Milli(r.deps.Now()))
	}
	if refused && next.MFA != nil {
		if next.MFA.Refused++; next.MFA.Refused >= maxCodes {
			next.MFA = nil
		}
	}
	saved, err := r.commitState(ctx, g, next)
	if err != nil {
		return nil, err
	}
	if refused {
		return saved, refusedCode(f)
	}
	return saved, f
}
