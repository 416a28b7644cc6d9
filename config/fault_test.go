package config_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
)

// faultsOf loads and returns every fault as text.
func faultsOf(t testing.TB, path string, environ []string) []string {
	t.Helper()
	_, err := config.Load(path, environ)
	if err == nil {
		return nil
	}
	problem, ok := errors.AsType[*config.Error](err)
	require.True(t, ok)
	texts := make([]string, len(problem.Faults))
	for i, f := range problem.Faults {
		texts[i] = f.String()
		require.Contains(t, err.Error(), texts[i])
	}
	return texts
}

func TestFaultsOfTheFile(t *testing.T) {
	for file, want := range map[string]string{
		"mesh:\n  timeot: 1s":                               "mesh: unknown key timeot (line 2), did you mean timeout?",
		"mesh:\n  clientSecret: x":                          "mesh: unknown key clientSecret (line 2), did you mean client_secret?",
		"mesh:\n  q1w2e3: x":                                "mesh: unknown key (line 2)",
		"{<<: 1}":                                           "unknown key (line 1)",
		"meshes: 1":                                         "unknown key meshes (line 1), did you mean mesh?",
		"elsewhere: 1":                                      "unknown key elsewhere (line 1)",
		"mesh: x":                                           "mesh: must be a mapping (line 1)",
		"mesh: [x]":                                         "mesh: must be a mapping (line 1)",
		"log: {level: [info]}":                              "log.level (LATCHKEY_LOG_LEVEL): must be a text (line 1)",
		"log:\n  level:\n":                                  "log.level (LATCHKEY_LOG_LEVEL): must be a text (line 2)",
		"mesh: {timeout: 30}":                               "mesh.timeout (LATCHKEY_MESH_TIMEOUT): must be a duration such as 500ms, 30s or 24h (line 1)",
		`mesh: {timeout: ""}`:                               "mesh.timeout (LATCHKEY_MESH_TIMEOUT): must be a duration such as 500ms, 30s or 24h (line 1)",
		"nats: {replicas: one}":                             "nats.replicas (LATCHKEY_NATS_REPLICAS): must be a whole number (line 1)",
		"nats: {replicas: 99999999999999999999}":            "nats.replicas (LATCHKEY_NATS_REPLICAS): must be a whole number (line 1)",
		"data_keys: {max_bytes: 1.5}":                       "data_keys.max_bytes (LATCHKEY_DATA_KEYS_MAX_BYTES): must be a whole number (line 1)",
		"limits: {rate: fast}":                              "limits.rate (LATCHKEY_LIMITS_RATE): must be a number (line 1)",
		"mesh: {remove_on_disconnect: perhaps}":             "mesh.remove_on_disconnect (LATCHKEY_MESH_REMOVE_ON_DISCONNECT): must be true or false (line 1)",
		"mesh: {access_token_brokers: a}":                   "mesh.access_token_brokers (LATCHKEY_MESH_ACCESS_TOKEN_BROKERS): must be a list of texts (line 1)",
		"mesh: {access_token_brokers: [{a: b}]}":            "mesh.access_token_brokers (LATCHKEY_MESH_ACCESS_TOKEN_BROKERS): must be a list of texts (line 1)",
		"log: {level: info, level: warn}":                   "log.level (LATCHKEY_LOG_LEVEL): must be given only once (line 1)",
		"a: &x 1\nlog: {level: *x}":                         "log.level (LATCHKEY_LOG_LEVEL): must be a text (line 2)",
		"refresh: {brokers: x}":                             "refresh.brokers: must be a mapping of broker types (line 1)",
		"refresh: {brokers: {a b: {}}}":                     "refresh.brokers: must consist of broker types of up to 64 letters, digits, dots, dashes and underscores (line 1)",
		"refresh: {brokers: {a: {}, a: {}}}":                "refresh.brokers.a: must be given only once (line 1)",
		"refresh: {brokers: {a: 1}}":                        "refresh.brokers.a: must be a mapping (line 1)",
		"refresh: {brokers: {a: {acess_token: {}}}}":        "refresh.brokers.a: unknown key acess_token (line 1), did you mean access_token?",
		"refresh: {brokers: {a: {access_token: 1}}}":        "refresh.brokers.a.access_token: must be a mapping (line 1)",
		"refresh: {brokers: {a: {access_token: {min: 1}}}}": "refresh.brokers.a.access_token.min: must be a duration such as 500ms, 30s or 24h (line 1)",
	} {
		require.Contains(t, faultsOf(t, write(t, file), required), want, file)
	}
}

func TestFilesThatAreNoConfiguration(t *testing.T) {
	for file, want := range map[string]string{
		"[a]":                              "must be a mapping of sections",
		"just text":                        "must be a mapping of sections",
		"log: {}\n---\nlog: {}\n":          "must be a single YAML document",
		"log: {":                           "is not YAML: could not find flow mapping end token '}' (line 1)",
		"log:\n  level: \"info":            "is not YAML: could not find end character of double-quoted text (line 2)",
		"log:\n  level: \"\\q\"\n":         "is not YAML: found unknown escape character 'q' (line 2)",
		"x: " + strings.Repeat("y", 1<<20): "cannot be read: file too large",
	} {
		path := write(t, file)
		require.Equal(t, []string{`configuration file "` + path + `" ` + want}, faultsOf(t, path, required))
	}
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	require.Equal(t, []string{`configuration file "` + missing + `" cannot be read: no such file or directory`},
		faultsOf(t, "", with("LATCHKEY_CONFIG="+missing)))
}

func TestFaultsOfTheEnvironment(t *testing.T) {
	for variable, want := range map[string]string{
		"LATCHKEY_MESH_TIMEOUT=30":     "mesh.timeout (LATCHKEY_MESH_TIMEOUT): must be a duration such as 500ms, 30s or 24h",
		"LATCHKEY_MESH_TIMEOUT=":       "mesh.timeout (LATCHKEY_MESH_TIMEOUT): must be a duration such as 500ms, 30s or 24h",
		"LATCHKEY_NATS_REPLICAS=x":     "nats.replicas (LATCHKEY_NATS_REPLICAS): must be a whole number",
		"LATCHKEY_MESH_TIMEOT=1s":      "LATCHKEY_MESH_TIMEOT: unknown variable, did you mean LATCHKEY_MESH_TIMEOUT?",
		"LATCHKEY_NATS_PASSWORD_FIL=x": "LATCHKEY_NATS_PASSWORD_FIL: unknown variable, did you mean LATCHKEY_NATS_PASSWORD_FILE?",
		"LATCHKEY_NATS_URL_FILE=x":     "LATCHKEY_NATS_URL_FILE: unknown variable",
		"LATCHKEY_REFRESH_BROKERS=x":   "LATCHKEY_REFRESH_BROKERS: unknown variable",
		"LATCHKEY_MESH=x":              "LATCHKEY_MESH: unknown variable",
		"LATCHKEY_ADMIN_PORT=9464":     "LATCHKEY_ADMIN_PORT: unknown variable",
		"LATCHKEY_=x":                  "LATCHKEY_: unknown variable",
		"LATCHKEY_weird name=x":        "LATCHKEY_…: unknown variable",
		"LATCHKEY_MESH_URL=ftp://h":    "mesh.url (LATCHKEY_MESH_URL): must be an https:// address without credentials and query (http:// on the loopback interface only)",
	} {
		texts := faultsOf(t, "", with(variable))
		require.Len(t, texts, 1, variable)
		require.True(t, strings.HasPrefix(texts[0], want), texts[0])
	}
}

func TestFaultsOfSecretFiles(t *testing.T) {
	both := "mesh.client_secret (LATCHKEY_MESH_CLIENT_SECRET): must not be set together with LATCHKEY_MESH_CLIENT_SECRET_FILE"
	require.Equal(t, []string{both}, faultsOf(t, "", with("LATCHKEY_MESH_CLIENT_SECRET_FILE="+write(t, "x"))))

	const about = "mesh.client_secret (LATCHKEY_MESH_CLIENT_SECRET_FILE): "
	for path, want := range map[string]string{
		"":                                   "must name a readable file of at most 64 KiB: no such file or directory",
		t.TempDir():                          "must name a readable file of at most 64 KiB: is a directory",
		write(t, strings.Repeat("x", 1<<17)): "must name a readable file of at most 64 KiB: file too large",
		write(t, "\n"):                       "must name a file that is not empty",
	} {
		environ := []string{required[0], required[1], "LATCHKEY_MESH_CLIENT_SECRET_FILE=" + path}
		require.Equal(t, []string{about + want}, faultsOf(t, "", environ))
	}
}

func TestFaultsOfValues(t *testing.T) {
	const tooLong = 11 * 365 * 24 * time.Hour
	nan := func() float64 { var zero float64; return zero / zero }()
	for key, breaks := range map[string][]func(*config.Config){
		"worker.id": {
			func(c *config.Config) { c.Worker.ID = "" },
			func(c *config.Config) { c.Worker.ID = "a b" },
		},
		"worker.grace": {
			func(c *config.Config) { c.Worker.Grace = 0 },
			func(c *config.Config) { c.Worker.Grace = tooLong },
			func(c *config.Config) { c.Worker.Grace = c.Mesh.Timeout + c.MongoDB.Timeout - 1 },
		},
		"worker.clock_skew": {func(c *config.Config) { c.Worker.ClockSkew = -1 }},
		"log.level":         {func(c *config.Config) { c.Log.Level = "loud" }},
		"log.format":        {func(c *config.Config) { c.Log.Format = "xml" }},
		"admin.listen": {
			func(c *config.Config) { c.Admin.Listen = "localhost" },
			func(c *config.Config) { c.Admin.Listen = ":http" },
			func(c *config.Config) { c.Admin.Listen = ":70000" },
		},
		"admin.token": {
			func(c *config.Config) { c.Admin.Token = secret.New("fifteen-letters") },
			func(c *config.Config) { c.Admin.Token = secret.New("with a space in it") },
		},
		"admin.cert_file": {
			func(c *config.Config) { c.Admin.CertFile = "x" },
			func(c *config.Config) { c.Admin.KeyFile = "x" },
		},
		"admin.pprof": {func(c *config.Config) { c.Admin.Pprof = true }},
		"nats.url": {
			func(c *config.Config) { c.NATS.URL = "" },
			func(c *config.Config) { c.NATS.URL = "localhost:4222" },
			func(c *config.Config) { c.NATS.URL = "http://h" },
			func(c *config.Config) { c.NATS.URL = "nats://a,b" },
			func(c *config.Config) { c.NATS.URL = "nats://u:p@a" },
		},
		"nats.username": {
			func(c *config.Config) { c.NATS.Username = "u" },
			func(c *config.Config) { c.NATS.Password = secret.New("p") },
		},
		"nats.password": {func(c *config.Config) { c.NATS.Username, c.NATS.Password = "u", secret.New("a\nb") }},
		"nats.token": {func(c *config.Config) {
			c.NATS.Username, c.NATS.Password, c.NATS.Token = "u", secret.New("p"), secret.New("t")
		}},
		"nats.creds_file": {func(c *config.Config) { c.NATS.Token, c.NATS.CredsFile = secret.New("t"), "creds" }},
		"nats.nkey_seed": {
			func(c *config.Config) { c.NATS.NKeySeed = secret.New("SAAA") },
			func(c *config.Config) { c.NATS.NKeySeed, c.NATS.Token = secret.New("SUAA"), secret.New("t") },
		},
		"nats.cert_file": {
			func(c *config.Config) { c.NATS.CertFile = "x" },
			func(c *config.Config) { c.NATS.KeyFile = "x" },
		},
		"worker.lock_memory":   {func(c *config.Config) { c.Worker.LockMemory = "on" }},
		"nats.inbox_prefix":    {func(c *config.Config) { c.NATS.InboxPrefix = "_INBOX.>" }},
		"nats.prefix":          {func(c *config.Config) { c.NATS.Prefix = "a.b" }},
		"nats.replicas":        {func(c *config.Config) { c.NATS.Replicas = 0 }, func(c *config.Config) { c.NATS.Replicas = 6 }},
		"nats.partitions":      {func(c *config.Config) { c.NATS.Partitions = 0 }, func(c *config.Config) { c.NATS.Partitions = 257 }},
		"nats.connect_timeout": {func(c *config.Config) { c.NATS.ConnectTimeout = 0 }},
		"mongodb.uri": {
			func(c *config.Config) { c.MongoDB.URI = secret.Text{} },
			func(c *config.Config) { c.MongoDB.URI = secret.New("postgres://h") },
			func(c *config.Config) { c.MongoDB.URI = secret.New("mongodb://u:p@ss@h") },
			func(c *config.Config) { c.MongoDB.URI = secret.New("mongodb://u:p/ss@h") },
			func(c *config.Config) { c.MongoDB.URI = secret.New("mongodb://u:%zz@h") },
			func(c *config.Config) { c.MongoDB.URI = secret.New("mongodb+srv://a,b") },
			func(c *config.Config) { c.MongoDB.URI = secret.New("mongodb+srv://a:1") },
		},
		"mongodb.database": {func(c *config.Config) { c.MongoDB.Database = "a.b" }},
		"mongodb.timeout":  {func(c *config.Config) { c.MongoDB.Timeout = 0 }},
		"kms.key_id":       {func(c *config.Config) { c.KMS.KeyID = "" }, func(c *config.Config) { c.KMS.KeyID = "a b" }},
		"kms.region": {
			func(c *config.Config) { c.KMS.Region = "Ohio!" },
			func(c *config.Config) {
				c.KMS.KeyID, c.KMS.Region = "arn:aws:kms:us-east-1:111122223333:key/x", "eu-central-1"
			},
		},
		"kms.endpoint": {
			func(c *config.Config) { c.KMS.Endpoint = "http://kms.example" },
			func(c *config.Config) { c.KMS.Endpoint = "https://u:p@kms.example" },
			func(c *config.Config) { c.KMS.Endpoint = "https://a,b" },
		},
		"kms.timeout":          {func(c *config.Config) { c.KMS.Timeout = 0 }},
		"data_keys.outage":     {func(c *config.Config) { c.DataKeys.Outage = -1 }},
		"data_keys.max_age":    {func(c *config.Config) { c.DataKeys.MaxAge = 0 }},
		"data_keys.max_sets":   {func(c *config.Config) { c.DataKeys.MaxSets = 1<<32 + 1 }, func(c *config.Config) { c.DataKeys.PerUser, c.DataKeys.MaxSets = true, 1<<24+1 }},
		"data_keys.max_bytes":  {func(c *config.Config) { c.DataKeys.MaxBytes = 0 }},
		"data_keys.cache_size": {func(c *config.Config) { c.DataKeys.CacheSize = 0 }},
		"data_keys.cache_age":  {func(c *config.Config) { c.DataKeys.CacheAge = 0 }},
		"mesh.url": {
			func(c *config.Config) { c.Mesh.URL = "http://mesh.example" },
			func(c *config.Config) { c.Mesh.URL = "https://mesh.example?q" },
			func(c *config.Config) { c.Mesh.URL = "http://127.0.0.1.example" },
		},
		"mesh.client_id":            {func(c *config.Config) { c.Mesh.ClientID = "" }},
		"mesh.client_secret":        {func(c *config.Config) { c.Mesh.ClientSecret = secret.Text{} }},
		"mesh.timeout":              {func(c *config.Config) { c.Mesh.Timeout = 0 }},
		"mesh.access_token_brokers": {func(c *config.Config) { c.Mesh.AccessTokenBrokers = []string{"a", ""} }},
		"refresh.lease": {
			func(c *config.Config) { c.Refresh.Lease = 0 },
			func(c *config.Config) {
				c.Refresh.Lease = c.Mesh.Timeout + c.MongoDB.Timeout + c.KMS.Timeout + c.Worker.ClockSkew
			},
		},
		"refresh.concurrency":        {func(c *config.Config) { c.Refresh.Concurrency = 0 }},
		"refresh.access_token.share": {func(c *config.Config) { c.Refresh.AccessToken.Share = 1 }, func(c *config.Config) { c.Refresh.AccessToken.Share = nan }},
		"refresh.access_token.min":   {func(c *config.Config) { c.Refresh.AccessToken.Min = -1 }},
		"refresh.access_token.max": {
			func(c *config.Config) { c.Refresh.AccessToken.Max = tooLong },
			func(c *config.Config) { c.Refresh.AccessToken.Max = c.Refresh.AccessToken.Min - 1 },
		},
		"refresh.refresh_token.jitter": {func(c *config.Config) { c.Refresh.RefreshToken.Jitter = 1.1 }},
		"refresh.brokers.weBull": {func(c *config.Config) {
			c.Refresh.Brokers = map[string]config.BrokerPolicy{"WEBULL": {}, "weBull": {}}
		}},
		"refresh.brokers": {func(c *config.Config) { c.Refresh.Brokers = map[string]config.BrokerPolicy{"a b": {}} }},
		"refresh.brokers.a.access_token.max": {func(c *config.Config) {
			c.Refresh.Brokers = map[string]config.BrokerPolicy{"a": {AccessToken: &config.Margin{}}}
		}},
		"refresh.brokers.….refresh_token.max": {func(c *config.Config) {
			c.Refresh.Brokers = map[string]config.BrokerPolicy{"a-1": {RefreshToken: &config.Margin{}}}
		}},
		"refresh.brokers.a.keep_alive": {
			func(c *config.Config) {
				c.Refresh.Brokers = map[string]config.BrokerPolicy{"a": {KeepAlive: time.Millisecond}}
			},
			func(c *config.Config) {
				c.Refresh.Brokers = map[string]config.BrokerPolicy{"a": {KeepAlive: -time.Hour}}
			},
			func(c *config.Config) {
				c.Refresh.Brokers = map[string]config.BrokerPolicy{"a": {KeepAlive: tooLong}}
			},
		},
		"refresh.backoff.min":       {func(c *config.Config) { c.Refresh.Backoff.Min = 0 }},
		"refresh.rate_limited.max":  {func(c *config.Config) { c.Refresh.RateLimited.Max = time.Second }},
		"refresh.credentials.max":   {func(c *config.Config) { c.Refresh.Credentials.Max = 0 }},
		"refresh.horizon":           {func(c *config.Config) { c.Refresh.Horizon = c.Reconcile.Interval }},
		"refresh.hold.grants":       {func(c *config.Config) { c.Refresh.Hold.Grants = -1 }},
		"refresh.hold.within":       {func(c *config.Config) { c.Refresh.Hold.Within = 0 }},
		"refresh.grace":             {func(c *config.Config) { c.Refresh.Grace = -1 }},
		"limits.rate":               {func(c *config.Config) { c.Limits.Rate = 0 }, func(c *config.Config) { c.Limits.Rate = nan }},
		"limits.burst":              {func(c *config.Config) { c.Limits.Burst = 0 }},
		"limits.broker_rate":        {func(c *config.Config) { c.Limits.BrokerRate = -1 }},
		"limits.broker_burst":       {func(c *config.Config) { c.Limits.BrokerBurst = 0 }},
		"limits.broker_concurrency": {func(c *config.Config) { c.Limits.BrokerConcurrency = 0 }},
		"limits.breaker_failures":   {func(c *config.Config) { c.Limits.BreakerFailures = 0 }},
		"limits.breaker_open":       {func(c *config.Config) { c.Limits.BreakerOpen = 0 }},
		"connect.concurrency":       {func(c *config.Config) { c.Connect.Concurrency = 0 }},
		"connect.max_bytes":         {func(c *config.Config) { c.Connect.MaxBytes = 1 }},
		"connect.key_overlap":       {func(c *config.Config) { c.Connect.KeyOverlap = 0 }},
		"connect.key_rotation":      {func(c *config.Config) { c.Connect.KeyRotation = 0 }, func(c *config.Config) { c.Connect.KeyRotation = 23 * time.Hour }},
		"connect.key_retention":     {func(c *config.Config) { c.Connect.KeyRetention = 0 }, func(c *config.Config) { c.Connect.KeyRetention = 30*24*time.Hour + 23*time.Hour }},
		"messages.ack_wait":         {func(c *config.Config) { c.Messages.AckWait = time.Millisecond }},
		"messages.max_deliver":      {func(c *config.Config) { c.Messages.MaxDeliver = 0 }},
		"messages.backoff.max":      {func(c *config.Config) { c.Messages.Backoff.Max = time.Millisecond }},
		"tokens.min_ttl":            {func(c *config.Config) { c.Tokens.MinTTL = -1 }},
		"tokens.refused_pause":      {func(c *config.Config) { c.Tokens.RefusedPause = 0 }},
		"tokens.timeout":            {func(c *config.Config) { c.Tokens.Timeout = 0 }},
		"tokens.concurrency":        {func(c *config.Config) { c.Tokens.Concurrency = 0 }},
		"tokens.inbox_prefixes": {
			func(c *config.Config) { c.Tokens.InboxPrefixes = []string{"_INBOX", "token"} },
			func(c *config.Config) { c.NATS.Prefix, c.Tokens.InboxPrefixes = "eu", []string{"eu"} },
			func(c *config.Config) { c.Tokens.InboxPrefixes = []string{"*"} },
		},
		"reconcile.interval": {func(c *config.Config) { c.Reconcile.Interval = 0 }},
		"reconcile.batch":    {func(c *config.Config) { c.Reconcile.Batch = 0 }},
		"reconcile.slack":    {func(c *config.Config) { c.Reconcile.Slack = -1 }},
		"tracing.endpoint": {
			func(c *config.Config) {
				c.Tracing.Endpoint, c.Tracing.Headers = "http://otel.example", secret.New("x-key=a")
			},
			func(c *config.Config) { c.Tracing.Endpoint = "http://u:p@otel.example" },
			func(c *config.Config) { c.Tracing.Endpoint = "http://otel.example?key=a" },
			func(c *config.Config) { c.Tracing.Endpoint = "grpc://otel.example" },
			func(c *config.Config) { c.Tracing.Endpoint = "https://u:p@otel.example" },
			func(c *config.Config) { c.Tracing.Endpoint = "otel.example:4318" },
		},
		"tracing.headers": {
			func(c *config.Config) { c.Tracing.Headers = secret.New("x-key") },
			func(c *config.Config) { c.Tracing.Headers = secret.New("x-key=a,") },
			func(c *config.Config) { c.Tracing.Headers = secret.New("x key=a") },
			func(c *config.Config) { c.Tracing.Headers = secret.New("x-key=é") },
		},
		"tracing.sample":         {func(c *config.Config) { c.Tracing.Sample = 1.1 }, func(c *config.Config) { c.Tracing.Sample = nan }},
		"tracing.service_name":   {func(c *config.Config) { c.Tracing.ServiceName = "" }},
		"retention.expired":      {func(c *config.Config) { c.Retention.Expired = 0 }},
		"retention.revocations":  {func(c *config.Config) { c.Retention.Revocations = 0 }},
		"retention.events":       {func(c *config.Config) { c.Retention.Events = 0 }},
		"retention.dead_letters": {func(c *config.Config) { c.Retention.DeadLetters = 0 }},
		"retention.audit":        {func(c *config.Config) { c.Retention.Audit = 0 }},
		"audit.mode":             {func(c *config.Config) { c.Audit.Mode = "" }, func(c *config.Config) { c.Audit.Mode = "on" }},
		"audit.timeout":          {func(c *config.Config) { c.Audit.Timeout = 0 }},
	} {
		for i, break_ := range breaks {
			c := valid(t)
			break_(&c)
			err := c.Validate()
			require.Error(t, err, "%s %d", key, i)
			problem, ok := errors.AsType[*config.Error](err)
			require.True(t, ok)
			require.Len(t, problem.Faults, 1, "%s %d: %v", key, i, err)
			require.Equal(t, key, problem.Faults[0].Key)
		}
	}
}

// valid returns a configuration without fault.
func valid(t testing.TB) config.Config {
	t.Helper()
	c, err := config.Load("", required)
	require.NoError(t, err)
	require.NoError(t, c.Validate())
	return c
}

func TestCredentialsInNATSAddressesMustBeClear(t *testing.T) {
	for _, environ := range [][]string{
		{"LATCHKEY_NATS_URL=nats://a:b@h1,nats://c:d@h2"},
		{"LATCHKEY_NATS_URL=nats://a:b@h1,nats://h2"},
		{"LATCHKEY_NATS_URL=nats://a:b@h1", "LATCHKEY_NATS_TOKEN=t"},
		{"LATCHKEY_NATS_URL=nats://a:b@h1", "LATCHKEY_NATS_USERNAME=a", "LATCHKEY_NATS_PASSWORD=b"},
		{"LATCHKEY_NATS_URL=nats://a:b@c@h1"},
	} {
		texts := faultsOf(t, "", with(environ...))
		require.Len(t, texts, 1)
		require.True(t, strings.HasPrefix(texts[0], "nats.url (LATCHKEY_NATS_URL): must be servers"), texts[0])
	}
}

func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	file := write(t, "mesh:\n  timeout: soon\n  extra: 1\nlog:\n  level: loud\nrefresh:\n  brokers: {a: {b: 1}}\n")
	require.Equal(t, []string{
		"mesh.timeout (LATCHKEY_MESH_TIMEOUT): must be a duration such as 500ms, 30s or 24h (line 2)",
		"mesh: unknown key extra (line 3)",
		"nats.replicas (LATCHKEY_NATS_REPLICAS): must be a whole number",
		"mesh.client_secret (LATCHKEY_MESH_CLIENT_SECRET_FILE): must name a readable file of at most 64 KiB: no such file or directory",
		"LATCHKEY_X: unknown variable",
		"refresh.brokers.a: unknown key b (line 7)",
		"log.level (LATCHKEY_LOG_LEVEL): must be one of debug, info, warn, error",
		"kms.key_id (LATCHKEY_KMS_KEY_ID): is required: the id, ARN or alias of a key",
		"mesh.client_id (LATCHKEY_MESH_CLIENT_ID): is required: up to 256 ASCII characters without spaces",
	}, faultsOf(t, file, []string{"LATCHKEY_NATS_REPLICAS=x", "LATCHKEY_X=1", "LATCHKEY_MESH_CLIENT_SECRET_FILE=/nowhere"}))
}
