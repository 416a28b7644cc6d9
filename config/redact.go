package config

import (
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/latchkey/latchkey/events/secret"
)

// Redacted returns a copy without secrets: even Reveal returns a placeholder. In
// addresses and the MongoDB connection string only the secret parts are replaced.
func (c Config) Redacted() Config {
	uri := c.MongoDB.URI.Reveal()
	for _, f := range leaves("", reflect.ValueOf(&c).Elem()) {
		if f.isSecret() && !f.value.Interface().(secret.Text).Empty() {
			f.value.Set(reflect.ValueOf(secret.New(secret.Redacted)))
		}
	}
	c.MongoDB.URI = secret.New(redactAddress(uri))
	c.NATS.URL = redactAddresses(c.NATS.URL)
	c.Mesh.URL = redactAddress(c.Mesh.URL)
	c.KMS.Endpoint = redactAddress(c.KMS.Endpoint)
	c.Tracing.Endpoint = redactAddress(c.Tracing.Endpoint)
	return c
}

// WriteYAML writes the redacted configuration as a configuration file.
func (c Config) WriteYAML(w io.Writer) error {
	return yaml.NewEncoder(w,
		yaml.CustomMarshaler(func(d time.Duration) ([]byte, error) { return []byte(short(d)), nil }),
		// Nothing secret is left in a redacted configuration.
		yaml.CustomMarshaler(func(t secret.Text) ([]byte, error) { return yaml.Marshal(t.Reveal()) }),
	).Encode(c.Redacted())
}

// short writes 24h0m0s as 24h.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
