package meshsim_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/clocktest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

func inDir(dir string, now *clocktest.Clock) func(*meshsim.Config) {
	return func(c *meshsim.Config) {
		c.Dir = dir
		if now != nil {
			c.Clock = now.Now
		}
	}
}

// sameLedger compares ledgers of the same moment as JSON.
func sameLedger(t *testing.T, want, got meshsim.Ledger) {
	t.Helper()
	require.JSONEq(t, string(must(json.Marshal(want))), string(must(json.Marshal(got))))
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, inDir(dir, nil))
	i := standard()
	i.Grace = time.Hour
	_, first, access := b.connect(i)
	r := b.renew(first)
	b.renew("unknown")
	otherID, other, _ := b.connect(standard())
	b.renew(other)
	b.renew(other)
	killedID, _, killed := b.connect(standard())
	require.NoError(t, b.Kill(killedID))
	altered, _, _ := b.connect(standard())
	require.NoError(t, b.Alter(altered, meshsim.Institution{Rotation: meshsim.RotateNever}))
	before := b.Ledger()
	require.NoError(t, b.Close())

	c := newBench(t, inDir(dir, b.clock))
	sameLedger(t, before, c.Ledger())
	c.requireAccess(access, "")
	c.requireAccess(killed, meshsim.DeadByFault)
	require.False(t, c.chain(otherID).Alive())
	require.Equal(t, r.refresh(), c.renew(first).refresh(), "the newest token is derived again")
	require.Equal(t, "succeeded", c.renew(r.refresh()).Content.Status)
	newID, _, _ := c.connect(standard())
	require.Equal(t, 5, c.chain(newID).ID)
}

func TestARequestUnderWayAtTheEndIsUndelivered(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, inDir(dir, nil))
	id, first, _ := b.connect(standard())
	b.script(id, meshsim.Hang())
	_, result := b.start(first)
	require.Eventually(t, func() bool { return len(b.chain(id).Refresh) == 2 }, time.Minute, time.Millisecond)
	require.NoError(t, b.Close())
	require.Error(t, <-result)

	c := newBench(t, inDir(dir, nil))
	c.settle()
	require.Len(t, c.Ledger().UndeliveredAnswers(), 1)
	require.Len(t, c.chain(id).Refresh, 2)
	c.renew(first)
	require.Empty(t, c.Ledger().Violations())
}

func TestACutLineIsDropped(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, inDir(dir, nil))
	id, first, _ := b.connect(standard())
	require.NoError(t, b.Close())
	f, err := os.OpenFile(filepath.Join(dir, meshsim.JournalName), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"at":"2031-`)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	c := newBench(t, inDir(dir, nil))
	require.Equal(t, "succeeded", c.renew(first).Content.Status)
	require.NoError(t, c.Close())
	d := newBench(t, inDir(dir, nil))
	require.Len(t, d.chain(id).Refresh, 2)
}

func TestAForeignOrBrokenJournalIsRefused(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, inDir(dir, nil))
	b.connect(standard())
	require.NoError(t, b.Close())
	_, err := meshsim.New(meshsim.Config{Seed: secret.New("another"), Dir: dir})
	require.ErrorIs(t, err, meshsim.ErrForeignJournal)

	for _, line := range []string{"not json\n", "{}\n"} {
		broken := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(broken, meshsim.JournalName), []byte(line), 0o600))
		_, err = meshsim.New(meshsim.Config{Seed: secret.New("seed"), Dir: broken})
		require.ErrorContains(t, err, "line 1")
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = meshsim.New(meshsim.Config{Seed: secret.New("seed"), Dir: file})
	require.Error(t, err)
}

// Whatever is kept or told about tokens holds fingerprints, never tokens.
func TestNoTokenIsKept(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, inDir(dir, nil))
	i := standard()
	i.MFACode = "424242"
	id, first, access := b.connect(i)
	interim := b.renew(first).access(0)
	r := b.renew(first, body{"mfaCode": "424242", "accessToken": interim.Reveal()})
	b.script(id, meshsim.Failed("no"))
	b.renew(r.refresh())
	b.do(http.MethodDelete, accountPath, body{"type": "coinbase", "authToken": access.Reveal()})
	b.do(http.MethodDelete, accountPath, body{"type": "coinbase", "authToken": access.Reveal()})

	kept := string(must(json.Marshal(b.Ledger()))) + string(b.do(http.MethodGet, "/sim/ledger", nil).raw)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			kept += string(must(os.ReadFile(path)))
			require.Equal(t, os.FileMode(0o600), must(d.Info()).Mode().Perm())
		}
		return err
	}))
	require.Contains(t, kept, string(meshsim.FingerprintOf(secret.New(first))))
	for _, token := range []string{first, r.refresh(), access.Reveal(), interim.Reveal(), r.access(0).Reveal(), clientSecret} {
		require.NotEmpty(t, token)
		require.False(t, strings.Contains(kept, token)) //nolint:testifylint // NotContains would print it
	}
}
