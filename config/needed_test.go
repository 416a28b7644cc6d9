package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
)

// A command asks for the values that it uses, and for those only; what is wrong it tells
// always.
func TestWhatIsMissingMattersToThoseWhoUseIt(t *testing.T) {
	t.Parallel()
	var faulty *config.Error
	_, err := config.Load("", nil)
	require.ErrorAs(t, err, &faulty)
	require.Len(t, faulty.Faults, 3)
	require.NoError(t, faulty.Needed())
	require.NoError(t, faulty.Needed("nats", "mongodb"))
	require.EqualError(t, faulty.Needed("kms"), "configuration: 1 fault(s)\n  kms.key_id (LATCHKEY_KMS_KEY_ID): is required: the id, ARN or alias of a key")
	require.ErrorAs(t, faulty.Needed("mesh"), &faulty)
	require.Len(t, faulty.Faults, 2)

	_, err = config.Load("", []string{"LATCHKEY_MESH_CLIENT_ID=a b", "LATCHKEY_MESH_TIMEOUT=0s", "LATCHKEY_NATS_REPLICAS=7", "LATCHKEY_MESH_CLIENT_SECRET_FILE=/nonexistent"})
	require.ErrorAs(t, err, &faulty)
	told := faulty.Needed().Error()
	for _, key := range []string{"mesh.client_id", "mesh.timeout", "nats.replicas", "mesh.client_secret"} {
		require.Contains(t, told, key)
	}
	require.NotContains(t, told, "kms.key_id")
}
