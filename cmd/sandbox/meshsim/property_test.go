package meshsim_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

// A client that keeps what it is told and never presents a token it knows to be
// replaced commits no violation, whatever is lost on the way; its access tokens
// die only with the chain; and a restart changes nothing of what the ledger says.
func TestAnHonestClientCommitsNoViolation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		b := newBench(t, inDir(dir, nil))
		i := meshsim.Institution{
			Rotation:      rapid.SampledFrom([]meshsim.Rotation{meshsim.RotateAlways, meshsim.RotateOnRequest, meshsim.RotateNever}).Draw(rt, "rotation"),
			Grace:         time.Duration(rapid.IntRange(0, 1).Draw(rt, "grace")) * time.Hour,
			GraceMode:     rapid.SampledFrom([]meshsim.GraceMode{meshsim.GraceNewest, meshsim.GraceRotate}).Draw(rt, "mode"),
			TolerateReuse: rapid.Bool().Draw(rt, "tolerate"),
		}
		id, token, access := b.connect(i)
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			action := rapid.SampledFrom([]meshsim.Action{
				meshsim.Normal(), meshsim.Normal(), meshsim.Drop(), meshsim.Cut(), meshsim.HTTPStatus(503),
				meshsim.HTTPStatus(502).AfterWork(), meshsim.OmitRefreshToken(), meshsim.Reset(),
			}).Draw(rt, "action")
			b.script(id, action)
			r, err := b.try(http.MethodPost, refreshPath, renewal(token, body{"createNewRefreshToken": rapid.Bool().Draw(rt, "new")}))
			b.settle()
			if err != nil || r.code != http.StatusOK || r.Content.Status != "succeeded" {
				continue
			}
			access = r.access(0)
			if next := r.refresh(); next != "" {
				token = next
			}
		}
		l := b.Ledger()
		require.Empty(rt, l.Violations())
		require.Empty(rt, l.DoubleSpends())
		c := b.chain(id)
		valid, _ := l.AccessTokenState(access)
		require.Equal(rt, c.Alive(), valid)
		if !c.Alive() {
			require.NotEmpty(rt, l.UndeliveredAnswers(), "only a lost answer can have killed it")
		}
		if len(l.UndeliveredAnswers()) == 0 {
			require.Equal(rt, meshsim.FingerprintOf(secret.New(token)), c.Current().Fingerprint)
		}
		require.NoError(rt, b.Close())
		sameLedger(t, l, newBench(t, inDir(dir, b.clock)).Ledger())
	})
}
