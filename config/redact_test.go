package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
)

// canary stands where a secret would; nothing else contains it.
const canary = "c4nary-7F3a9c"

// secretVariables are the variables of all secrets.
var secretVariables = []string{
	"LATCHKEY_NATS_PASSWORD", "LATCHKEY_NATS_TOKEN", "LATCHKEY_NATS_NKEY_SEED", "LATCHKEY_MONGODB_URI", "LATCHKEY_MESH_CLIENT_SECRET",
	"LATCHKEY_ADMIN_TOKEN",
	"LATCHKEY_TRACING_HEADERS",
}

// printed returns what the configuration looks like on every way out.
func printed(t require.TestingT, c config.Config) string {
	var out bytes.Buffer
	require.NoError(t, c.WriteYAML(&out))
	redacted := c.Redacted()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		fmt.Fprintf(&out, verb, redacted)
	}
	require.NoError(t, json.NewEncoder(&out).Encode(redacted))
	for _, text := range []secret.Text{
		redacted.NATS.Password, redacted.NATS.Token, redacted.NATS.NKeySeed, redacted.MongoDB.URI, redacted.Mesh.ClientSecret,
		redacted.Admin.Token, redacted.Tracing.Headers,
	} {
		out.WriteString(text.Reveal())
	}
	return out.String()
}

func requireNoCanary(t require.TestingT, out string) {
	require.NotContains(t, out, canary)
	require.NotContains(t, out, fmt.Sprintf("%x", canary))
}

func TestSecretsAreNotPrinted(t *testing.T) {
	for environ, shows := range map[string]string{
		"LATCHKEY_NATS_USERNAME=u LATCHKEY_NATS_PASSWORD=" + canary:                          `password: "[redacted]"`,
		"LATCHKEY_TRACING_HEADERS=x-key=" + canary:                                           `headers: "[redacted]"`,
		"LATCHKEY_NATS_TOKEN=" + canary:                                                      `token: "[redacted]"`,
		"LATCHKEY_NATS_NKEY_SEED=SU" + canary:                                                `nkey_seed: "[redacted]"`,
		"LATCHKEY_MESH_CLIENT_SECRET=" + canary:                                              `client_secret: "[redacted]"`,
		"LATCHKEY_ADMIN_TOKEN=1234" + canary:                                                 `token: "[redacted]"`,
		"LATCHKEY_MONGODB_URI=mongodb://me:" + canary + "@h1,h2/db?w=2":                      `uri: mongodb://me:[redacted]@h1,h2/db?w=2`,
		"LATCHKEY_MONGODB_URI=mongodb://" + canary + "@h":                                    `uri: mongodb://[redacted]@h`,
		"LATCHKEY_MONGODB_URI=mongodb://h/?tls=true&tlsCertificateKeyFilePassword=" + canary: `uri: mongodb://h/?tls=true&[redacted]`,
		"LATCHKEY_NATS_URL=nats://me:" + canary + "@h1,nats://me:" + canary + "@h2":          "url: nats://h1,nats://h2\n  username: me\n  password: \"[redacted]\"",
		"LATCHKEY_NATS_URL=nats://" + canary + "@h":                                          `token: "[redacted]"`,
	} {
		c, err := config.Load("", with(strings.Fields(environ)...))
		require.NoError(t, err)
		out := printed(t, c)
		requireNoCanary(t, out)
		require.Contains(t, out, shows)
		require.NotContains(t, fmt.Sprintf("%+v", c), canary, "not even when printed whole")
	}
}

func TestFaultyValuesAreNotPrinted(t *testing.T) {
	for _, variable := range []string{
		"LATCHKEY_MONGODB_URI=" + canary,
		"LATCHKEY_MONGODB_URI=mongodb://me:" + canary,
		"LATCHKEY_MONGODB_URI=mongodb://me:x/" + canary + "@h",
		"LATCHKEY_MONGODB_URI=mongodb://me:1/" + canary + "@h",
		"LATCHKEY_MONGODB_URI=mongodb://me:x@" + canary + "@h",
		"LATCHKEY_MONGODB_URI=mongodb://me:%zz" + canary + "@h",
		"LATCHKEY_NATS_URL=nats://me:" + canary,
		"LATCHKEY_NATS_URL=nats://a:" + canary + "@h1,nats://b:" + canary + "@h2",
		"LATCHKEY_NATS_URL=nats://a:1," + canary + "@h1",
		"LATCHKEY_MESH_URL=https://me:" + canary + "@h",
		"LATCHKEY_MESH_URL=https://h/?key=" + canary,
		"LATCHKEY_KMS_ENDPOINT=http://me:" + canary + "@h",
		"LATCHKEY_TRACING_ENDPOINT=https://me:" + canary + "@h",
		"LATCHKEY_TRACING_HEADERS=" + canary,
		"LATCHKEY_NATS_NKEY_SEED=" + canary,
		"LATCHKEY_NATS_PASSWORD=" + canary,
		"LATCHKEY_NATS_TOKEN=" + canary + "\n" + canary,
		"LATCHKEY_NATS_REPLICAS=" + canary,
		"LATCHKEY_WORKER_GRACE=" + canary,
		"LATCHKEY_NATS_TOKEN_FILE=" + canary,
		"LATCHKEY_UNKNOWN=" + canary,
		"LATCHKEY_" + canary + "=x",
	} {
		c, err := config.Load("", with(variable))
		require.Error(t, err, variable)
		requireNoCanary(t, err.Error()+fmt.Sprintf("%#v", err))
		requireNoCanary(t, printed(t, c))
	}
	for _, file := range []string{
		"mesh:\n  client_secret: " + canary + "\n bad indentation",
		"mesh:\n  client_secret: \"" + canary,
		"mesh: {client_secrets:" + canary + "}",
		"mesh: {client_secret: {" + canary + ": x}}",
		"mesh: {client_secret: [" + canary + "]}",
		"mesh:\n  client_secret: " + canary + ": x",
		"mesh: " + canary,
		canary,
		"mesh: {timeout: " + canary + "}",
		"mesh: {secret: " + canary + "}",
		"mesh: {client_secret: !!" + canary + " x}",
		"mesh: {client_secret: *" + canary + "}",
		"refresh: {brokers: {" + canary + ": 1}}",
		"refresh: {brokers: {a: {" + canary + ": 1}}}",
		canary + ": 1\n" + canary + ": 1",
		"%YAML " + canary + "\n---\n",
	} {
		_, err := config.Load(write(t, file), required)
		require.Error(t, err, file)
		requireNoCanary(t, err.Error()+fmt.Sprintf("%#v", err))
	}
}

func TestRedactedLeavesTheOriginalAlone(t *testing.T) {
	c := valid(t)
	_ = c.Redacted()
	require.Equal(t, "shh", c.Mesh.ClientSecret.Reveal())
}

func TestUnsetSecretsAreShownAsUnset(t *testing.T) {
	require.Contains(t, printed(t, valid(t)), `token: ""`)
}

func TestWhatIsWrittenCanBeRead(t *testing.T) {
	want := load(t, "refresh: {brokers: {coinbase: {access_token: {share: 0.5}}}}",
		"LATCHKEY_MESH_TIMEOUT=1500ms", "LATCHKEY_ADMIN_LISTEN=", "LATCHKEY_LIMITS_RATE=0.5")
	var out bytes.Buffer
	require.NoError(t, want.WriteYAML(&out))
	require.Contains(t, out.String(), "max_age: 24h\n")
	require.Contains(t, out.String(), "max: 30m\n")
	require.Contains(t, out.String(), "timeout: 1.5s\n")
	require.Equal(t, want, load(t, out.String()))
}

func TestNoSecretIsEverPrinted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Pieces that mean something in addresses and in YAML, around the canary.
		piece := rapid.SampledFrom([]string{
			"", "mongodb://", "mongodb+srv://", "nats://", "tls://", "https://", "http://", "u:", "u", ":", "@", "/", "?", "#", ",",
			"h", "h:1", "%", "%40", "&", "=", "w=", " ", "\n", "\"", "'", "[", "{", "\x00", "é",
		})
		hidden := func(label string) string {
			pieces := rapid.SliceOfN(piece, 0, 6)
			return strings.Join(pieces.Draw(t, label+" before"), "") + canary + strings.Join(pieces.Draw(t, label+" after"), "")
		}
		environ := []string{"LATCHKEY_NATS_REPLICAS=" + rapid.SampledFrom([]string{"1", "x"}).Draw(t, "replicas")}
		for _, name := range secretVariables {
			if rapid.Bool().Draw(t, name) {
				value := hidden(name)
				if name == "LATCHKEY_MONGODB_URI" { // its host, for one, is not a secret
					value = "mongodb://u:" + value + "@h"
				}
				environ = append(environ, name+"="+value)
			}
		}
		for _, name := range []string{"LATCHKEY_NATS_URL", "LATCHKEY_MESH_URL", "LATCHKEY_KMS_ENDPOINT", "LATCHKEY_TRACING_ENDPOINT"} {
			if rapid.Bool().Draw(t, name) {
				before := rapid.SampledFrom([]string{"nats://u:", "nats://h,nats://u:", "https://u:", "u:", "http://"}).Draw(t, name+" before")
				after := rapid.SampledFrom([]string{"@h", "@h,nats://h", "@@h", "/x@h", "@h/?q"}).Draw(t, name+" after")
				environ = append(environ, name+"="+before+canary+after)
			}
		}
		c, err := config.Load("", environ)
		require.Error(t, err, "the KMS key is missing")
		requireNoCanary(t, err.Error())
		requireNoCanary(t, printed(t, c))
	})
}

func FuzzLoad(f *testing.F) {
	f.Add("mesh:\n  client_secret: "+canary+"\n  timeout: 5s\n", "LATCHKEY_NATS_TOKEN", canary)
	f.Add("nats: {url: 'nats://u:"+canary+"@h', replicas: 3}", "LATCHKEY_MONGODB_URI", "mongodb://u:"+canary+"@h")
	f.Add("refresh:\n  brokers:\n    a: {access_token: {min: 1s}}\n", "LATCHKEY_MESH_ACCESS_TOKEN_BROKERS", "a,b")
	f.Add("nats: {password: &a |\n  "+canary+"\n, token: *a}", "LATCHKEY_MONGODB_URI_FILE", canary)
	f.Fuzz(func(t *testing.T, file, name, value string) {
		_, err := config.Load(write(t, file), []string{name + "=" + value, name})
		require.Error(t, err, "what is required is missing")
		requireNoCanary(t, err.Error())
	})
}
