package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
)

// required are the variables without which no configuration is whole.
var required = []string{
	"LATCHKEY_KMS_KEY_ID=alias/latchkey",
	"LATCHKEY_MESH_CLIENT_ID=client",
	"LATCHKEY_MESH_CLIENT_SECRET=shh",
}

// with returns the required variables and more.
func with(more ...string) []string { return append(append([]string{}, required...), more...) }

// write puts content into a file of its own and returns its path.
func write(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func load(t testing.TB, yaml string, environ ...string) config.Config {
	t.Helper()
	c, err := config.Load(write(t, yaml), with(environ...))
	require.NoError(t, err)
	return c
}

func TestDefaultsHoldWhereNothingElseIsSaid(t *testing.T) {
	got, err := config.Load("", required)
	require.NoError(t, err)

	want := config.Default()
	want.Worker.ID = got.Worker.ID
	want.KMS.KeyID = "alias/latchkey"
	want.Mesh.ClientID = "client"
	want.Mesh.ClientSecret = secret.New("shh")
	require.Equal(t, want, got)
}

func TestEveryWorkerGetsAnotherID(t *testing.T) {
	one, err := config.Load("", required)
	require.NoError(t, err)
	two, err := config.Load("", required)
	require.NoError(t, err)
	require.Regexp(t, `^[A-Za-z0-9._-]+-[0-9a-f]{8}$`, one.Worker.ID)
	require.NotEqual(t, one.Worker.ID, two.Worker.ID)
	require.Equal(t, "fixed", load(t, "", "LATCHKEY_WORKER_ID=fixed").Worker.ID)
}

func TestEnvironmentWinsOverFileWinsOverDefault(t *testing.T) {
	file := "mesh:\n  timeout: 7s\nlog:\n  level: warn\n"
	c := load(t, file, "LATCHKEY_MESH_TIMEOUT=9s")
	require.Equal(t, 9*time.Second, c.Mesh.Timeout)
	require.Equal(t, "warn", c.Log.Level)
	require.Equal(t, "json", c.Log.Format)
}

func TestTheCallersFileWinsOverTheVariable(t *testing.T) {
	debug, warn := write(t, "log: {level: debug}"), write(t, "log: {level: warn}")

	c, err := config.Load("", with("LATCHKEY_CONFIG="+debug))
	require.NoError(t, err)
	require.Equal(t, "debug", c.Log.Level)

	c, err = config.Load(warn, with("LATCHKEY_CONFIG="+debug))
	require.NoError(t, err)
	require.Equal(t, "warn", c.Log.Level)
}

func TestAFileMayBeEmptyAndSoMayItsSections(t *testing.T) {
	for _, file := range []string{"", "# nothing\n", "---\n", "mesh:\n", "mesh: {}\nrefresh:\n  brokers:\n  backoff:\n"} {
		c := load(t, file)
		require.Equal(t, config.Default().Refresh.Backoff, c.Refresh.Backoff, file)
		require.Empty(t, c.Refresh.Brokers, file)
	}
}

func TestEveryKindOfValueReadsAlikeInBothNotations(t *testing.T) {
	file := `
log: {level: debug}
data_keys: {max_sets: 12, cache_size: 13}
limits: {rate: 1.5, broker_rate: 2}
mesh: {timeout: 1500ms, remove_on_disconnect: true, access_token_brokers: [a, b]}
admin: {listen: ""}
refresh: {access_token: {share: 0.5, min: 2m}}
`
	fromFile := load(t, file, "LATCHKEY_WORKER_ID=w")
	fromEnvironment := load(t, "", "LATCHKEY_WORKER_ID=w", "LATCHKEY_LOG_LEVEL=debug",
		"LATCHKEY_DATA_KEYS_MAX_SETS=12", "LATCHKEY_DATA_KEYS_CACHE_SIZE=13",
		"LATCHKEY_LIMITS_RATE=1.5", "LATCHKEY_LIMITS_BROKER_RATE=2",
		"LATCHKEY_MESH_TIMEOUT=1500ms", "LATCHKEY_MESH_REMOVE_ON_DISCONNECT=true",
		"LATCHKEY_MESH_ACCESS_TOKEN_BROKERS=a, b", "LATCHKEY_ADMIN_LISTEN=",
		"LATCHKEY_REFRESH_ACCESS_TOKEN_SHARE=0.5", "LATCHKEY_REFRESH_ACCESS_TOKEN_MIN=2m")
	require.Equal(t, fromFile, fromEnvironment)

	require.Empty(t, fromFile.Admin.Listen)
	require.Equal(t, int64(12), fromFile.DataKeys.MaxSets)
	require.Equal(t, 1500*time.Millisecond, fromFile.Mesh.Timeout)
	require.Equal(t, []string{"a", "b"}, fromFile.Mesh.AccessTokenBrokers)
	require.True(t, fromFile.Mesh.RemoveOnDisconnect)
	require.Equal(t, config.Margin{Share: 0.5, Min: 2 * time.Minute, Max: 30 * time.Minute, Jitter: 0.2},
		fromFile.Refresh.AccessToken)
}

func TestListsCanBeEmptied(t *testing.T) {
	require.Empty(t, load(t, "mesh: {access_token_brokers: []}").Mesh.AccessTokenBrokers)
	require.Empty(t, load(t, "", "LATCHKEY_MESH_ACCESS_TOKEN_BROKERS=").Mesh.AccessTokenBrokers)
}

func TestABrokersMarginTakesTheRestFromTheGeneralOne(t *testing.T) {
	file := `
refresh:
  brokers:
    coinbase:
      access_token: {share: 0.5}
    other-1:
      refresh_token: {max: 48h}
    unused:
      keep_alive: 168h
    none:
  access_token: {min: 3m}
`
	c := load(t, file, "LATCHKEY_REFRESH_ACCESS_TOKEN_MAX=20m")
	require.Equal(t, config.BrokerPolicy{
		AccessToken: &config.Margin{Share: 0.5, Min: 3 * time.Minute, Max: 20 * time.Minute, Jitter: 0.2},
	}, c.Refresh.Brokers["coinbase"])
	require.Equal(t, config.BrokerPolicy{
		RefreshToken: &config.Margin{Share: 0.2, Min: time.Hour, Max: 48 * time.Hour, Jitter: 0.2},
	}, c.Refresh.Brokers["other-1"])
	require.Equal(t, config.BrokerPolicy{KeepAlive: 168 * time.Hour}, c.Refresh.Brokers["unused"])
	require.Equal(t, config.BrokerPolicy{}, c.Refresh.Brokers["none"])
}

func TestSecretsKeepTheirCharacters(t *testing.T) {
	for _, text := range []string{"007", "1_000", "0x10", "1e5", "true", "'it''s: #1'", `"a\tb"`} {
		want := map[string]string{"'it''s: #1'": "it's: #1", `"a\tb"`: "a\tb"}[text]
		if want == "" {
			want = text
		}
		c, _ := config.Load(write(t, "mesh:\n  client_secret: "+text+"\n"), nil)
		require.Equal(t, want, c.Mesh.ClientSecret.Reveal())
	}
	require.Equal(t, "a,b=c ", load(t, "", "LATCHKEY_MESH_CLIENT_SECRET=a,b=c ").Mesh.ClientSecret.Reveal())
}

func TestSecretsFromFiles(t *testing.T) {
	for content, want := range map[string]string{
		"s3cret": "s3cret", "s3cret\n": "s3cret", "s3cret\r\n": "s3cret", " s3cret ": " s3cret ",
	} {
		c, err := config.Load("", []string{
			required[0], required[1],
			"LATCHKEY_MESH_CLIENT_SECRET_FILE=" + write(t, content),
		})
		require.NoError(t, err)
		require.Equal(t, want, c.Mesh.ClientSecret.Reveal())
	}
}

func TestASecretFileWinsOverTheConfigurationFile(t *testing.T) {
	c := load(t, "mongodb: {uri: mongodb://one}",
		"LATCHKEY_MONGODB_URI_FILE="+write(t, "mongodb://two\n"))
	require.Equal(t, "mongodb://two", c.MongoDB.URI.Reveal())
}

func TestCredentialsInNATSAddressesMoveToTheirFields(t *testing.T) {
	c := load(t, "", "LATCHKEY_NATS_URL=nats://me:p%40ss@a:4222, tls://me:p%40ss@b:4222")
	require.Equal(t, "nats://a:4222,tls://b:4222", c.NATS.URL)
	require.Equal(t, "me", c.NATS.Username)
	require.Equal(t, "p@ss", c.NATS.Password.Reveal())

	c = load(t, "", "LATCHKEY_NATS_URL=nats://t0ken@a:4222")
	require.Equal(t, "nats://a:4222", c.NATS.URL)
	require.Equal(t, "t0ken", c.NATS.Token.Reveal())
	require.Empty(t, c.NATS.Username)
}

func TestForeignVariablesAreIgnored(t *testing.T) {
	load(t, "", "PATH=/bin", "LATCHKEYHOLE=1", "LATCHKEY_TEST_MONGODB=x",
		// What Kubernetes sets for services called latchkey and latchkey-admin.
		"LATCHKEY_SERVICE_HOST=10.0.0.1", "LATCHKEY_SERVICE_PORT=9464", "LATCHKEY_SERVICE_PORT_METRICS=9464",
		"LATCHKEY_PORT=tcp://10.0.0.1:9464", "LATCHKEY_PORT_9464_TCP=tcp://10.0.0.1:9464",
		"LATCHKEY_PORT_9464_TCP_ADDR=10.0.0.1", "LATCHKEY_PORT_9464_TCP_PROTO=tcp",
		"LATCHKEY_ADMIN_SERVICE_HOST=10.0.0.2", "LATCHKEY_ADMIN_PORT_80_TCP_PORT=80")
}

func TestAddressesThatAreAllowed(t *testing.T) {
	for _, uri := range []string{
		"mongodb://h", "mongodb://u:p@h1:1,h2:2/db?replicaSet=rs0&w=majority", "mongodb+srv://u:p@cluster.example.net/?tls=true",
		"mongodb://[::1]:27017/", "mongodb://%2Ftmp%2Fmongodb.sock/",
	} {
		load(t, "", "LATCHKEY_MONGODB_URI="+uri)
	}
	for _, url := range []string{"https://mesh.example/api", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:80/"} {
		load(t, "", "LATCHKEY_MESH_URL="+url, "LATCHKEY_KMS_ENDPOINT="+url)
	}
}
