package roles_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/conf"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/deploy/nats/roles"
	"github.com/latchkey/latchkey/events"
)

// The files say to the program what they say to a server.
func TestRolesAreThoseThatServersRead(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.conf")
	require.NoError(t, err)
	all := roles.All()
	require.Len(t, all, len(files))
	for _, file := range files {
		parsed, err := conf.ParseFile(file)
		require.NoError(t, err)
		texts := func(v any) (out []string) {
			for _, s := range v.([]any) {
				out = append(out, s.(string))
			}
			return out
		}
		role := strings.TrimSuffix(file, ".conf")
		require.Equal(t, roles.Permissions{Publish: texts(parsed["publish"]), Subscribe: texts(parsed["subscribe"])}, all[role], role)
	}
}

func TestWhoMay(t *testing.T) {
	t.Parallel()
	eu := events.Subjects{Prefix: "eu", Partitions: 4}
	for _, c := range []struct {
		publish bool
		subject string
		s       events.Subjects
		want    []string
	}{
		{true, "integration.connected", events.Subjects{}, []string{"operator", "publisher", "worker"}},
		{true, "eu.integration.connected", eu, []string{"operator", "publisher", "worker"}},
		{true, eu.RefreshSchedule("g"), eu, []string{"operator", "worker"}},
		{true, "$JS.API.STREAM.PURGE.EU_LATCHKEY_REFRESH_3", eu, []string{"worker"}},
		{true, "$JS.API.CONSUMER.INFO.EU_LATCHKEY_REFRESH_3.latchkey-eu-refresh-due-3", eu, []string{"worker"}},
		{true, "$JS.API.CONSUMER.CREATE.EU_LATCHKEY_REFRESH_3.latchkey-eu-refresh-due-3.eu.refresh.due.3", eu, []string{"worker"}},
		{true, "$JS.API.DIRECT.GET.EU_LATCHKEY_REFRESH_1.eu.refresh.schedule.1.g", eu, []string{"operator", "worker"}},
		{true, "$JS.API.STREAM.PURGE.EU_LATCHKEY_LIFECYCLE_2", eu, []string{"operator"}},
		{true, "$JS.API.STREAM.INFO.EU_LATCHKEY_LIFECYCLE_2", eu, []string{"observer", "operator", "worker"}},
		{true, eu.PublishedLifecycle(eu.Lifecycle(events.TokenStored, "alice")), eu, []string{"worker"}},
		{true, "$JS.API.STREAM.INFO.EU_LATCHKEY_AUDIT_3", eu, []string{"operator", "worker"}},
		{true, eu.AuditPartition("c").Chain("c"), eu, []string{"operator", "worker"}},
		{true, "$SRV.STATS.eu-latchkey-tokens", eu, []string{"worker"}},
		{true, "$JS.API.CONSUMER.DELETE.LATCHKEY_LIFECYCLE.observer", events.Subjects{}, nil},
		{true, "token.get.carol", events.Subjects{}, []string{"operator"}},
		{false, "token.get.*", events.Subjects{}, []string{"worker"}},
		{false, "_INBOX_operator.x.*", events.Subjects{}, []string{"operator"}},
		{false, "integration.connected", events.Subjects{}, nil},
	} {
		require.Equal(t, c.want, roles.Permit(c.publish, c.subject, c.s), c.subject)
	}
}
