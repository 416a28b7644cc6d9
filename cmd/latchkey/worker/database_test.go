package worker_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/store"
)

// mongo is a client of the database, the same for a whole test.
func (h *harness) mongo() *mongo.Client {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.client == nil {
		cfg, err := h.stack.Config(h.settings()...)
		require.NoError(h.t, err)
		h.client, err = mongo.Connect(options.Client().ApplyURI(cfg.MongoDB.URI.Reveal()))
		require.NoError(h.t, err)
	}
	return h.client
}

// grants reads what the database holds of a user.
func (h *harness) grants(user string) []store.Grant {
	h.t.Helper()
	cursor, err := h.mongo().Database(h.database).Collection("grants").Find(h.ctx, bson.D{{Key: "user", Value: user}})
	require.NoError(h.t, err)
	var out []store.Grant
	require.NoError(h.t, cursor.All(h.ctx, &out))
	return out
}

// scheduled reports whether a grant's schedule lies in the stream.
func (h *harness) scheduled(grantID string) bool {
	h.t.Helper()
	subject := h.subjects.RefreshSchedule(grantID)
	stream, err := h.js.Stream(h.ctx, h.subjects.RefreshStream())
	require.NoError(h.t, err)
	info, err := stream.Info(h.ctx, jetstream.WithSubjectFilter(subject))
	require.NoError(h.t, err)
	return info.State.Subjects[subject] > 0
}

// subjectsOf lists the subjects of which a stream holds messages.
func (h *harness) subjectsOf(name string) []string {
	h.t.Helper()
	stream, err := h.js.Stream(h.ctx, name)
	require.NoError(h.t, err)
	info, err := stream.Info(h.ctx, jetstream.WithSubjectFilter(">"))
	require.NoError(h.t, err)
	return slices.Collect(maps.Keys(info.State.Subjects))
}

// handled waits until every published message has been handled.
func (h *harness) handled() {
	h.t.Helper()
	h.eventually(func() bool {
		stream, err := h.js.Stream(h.ctx, h.subjects.IntegrationStream())
		return err == nil && stream.CachedInfo().State.Msgs == 0
	}, "published messages are not handled")
}

// deadLetters waits for n dead letters and returns all there are, as they lie
// in the stream.
func (h *harness) deadLetters(n int) [][]byte {
	h.t.Helper()
	var out [][]byte
	h.eventually(func() bool {
		out = nil
		stream, err := h.js.Stream(h.ctx, h.subjects.DeadLetterStream())
		if err != nil {
			return false
		}
		state := stream.CachedInfo().State
		for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
			msg, err := stream.GetMsg(h.ctx, seq)
			if err != nil {
				return false
			}
			if !strings.HasSuffix(msg.Subject, ".part") { // of the letter that follows
				out = append(out, msg.Data)
			}
		}
		return len(out) >= n
	}, "too few dead letters")
	return out
}

// files reads every file below a folder of the harness's. The engines that
// write there must be stopped.
func (h *harness) files(folder string) string {
	h.t.Helper()
	var all strings.Builder
	require.NoError(h.t, filepath.WalkDir(filepath.Join(h.dir, folder), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all.Write(content)
		return err
	}))
	require.NotZero(h.t, all.Len(), "no files below %s", folder)
	return all.String()
}
