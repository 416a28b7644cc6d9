package config

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events"
)

var (
	inboxPrefix  = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	natsPrefix   = regexp.MustCompile(`^[A-Za-z0-9-]{0,64}$`)
	databaseName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)
	keyID        = regexp.MustCompile(`^[A-Za-z0-9:/_-]{1,1000}$`)
	region       = regexp.MustCompile(`^[a-z0-9-]{0,64}$`)
	visible      = regexp.MustCompile(`^[!-~]{1,256}$`)
)

func (c Config) checkNATS(f *faults) {
	n := c.NATS
	servers, ok := parseAddresses(n.URL)
	for _, a := range servers {
		ok = ok && a.userinfo == "" && slices.Contains([]string{"nats", "tls", "ws", "wss"}, a.scheme) &&
			!strings.Contains(a.hosts, ",")
	}
	f.unless(ok, "nats.url", "must be servers such as nats://host:4222 (or tls, ws, wss), comma separated; "+
		"credentials in them must be percent-encoded, the same in all, and not set elsewhere too")
	f.unless((n.Username == "") == n.Password.Empty(), "nats.username", "must be set together with nats.password")
	var used []string
	for _, way := range []struct {
		key string
		set bool
	}{
		{"nats.username", n.Username != "" || !n.Password.Empty()},
		{"nats.token", !n.Token.Empty()},
		{"nats.nkey_seed", !n.NKeySeed.Empty()},
		{"nats.creds_file", n.CredsFile != ""},
	} {
		if way.set {
			used = append(used, way.key)
		}
	}
	if len(used) > 1 {
		f.add(used[1], "must be the only way to authenticate: set one of %s", strings.Join(used, ", "))
	}
	f.unless(n.NKeySeed.Empty() || strings.HasPrefix(n.NKeySeed.Reveal(), "SU"), "nats.nkey_seed",
		"must be the seed of a user NKey, which begins with SU")
	f.unless((n.CertFile == "") == (n.KeyFile == ""), "nats.cert_file", "must be set together with nats.key_file")
	f.unless(inboxPrefix.MatchString(n.InboxPrefix) && len(n.InboxPrefix) <= 128, "nats.inbox_prefix",
		"must be up to 128 letters, digits, dashes and underscores, in parts divided by dots")
	f.unless(natsPrefix.MatchString(n.Prefix), "nats.prefix", "must be up to 64 letters, digits and dashes, or empty")
	f.count("nats.replicas", n.Replicas, 1, 5)
	f.count("nats.partitions", n.Partitions, 1, events.MaxPartitions)
	f.duration("nats.connect_timeout", n.ConnectTimeout, time.Millisecond)
}

func (c Config) checkStorage(f *faults) {
	uri, ok := parseAddress(c.MongoDB.URI.Reveal())
	isSRV := uri.scheme == "mongodb+srv" && !strings.ContainsAny(uri.hosts, ",:")
	f.unless(ok && (uri.scheme == "mongodb" || isSRV), "mongodb.uri",
		"must be mongodb://host:port or mongodb+srv://host, with special characters of user and password percent-encoded")
	f.unless(databaseName.MatchString(c.MongoDB.Database), "mongodb.database",
		"must be 1 to 63 letters, digits, dashes and underscores")
	f.duration("mongodb.timeout", c.MongoDB.Timeout, time.Millisecond)

	f.required(keyID.MatchString(c.KMS.KeyID), c.KMS.KeyID != "", "kms.key_id", "is required: the id, ARN or alias of a key")
	f.unless(region.MatchString(c.KMS.Region), "kms.region", "must be an AWS Region such as eu-central-1, or empty")
	arn := strings.Split(c.KMS.KeyID, ":")
	f.unless(c.KMS.Region == "" || len(arn) < 4 || arn[0] != "arn" || arn[3] == c.KMS.Region, "kms.region",
		"must be the Region in kms.key_id")
	f.unless(c.KMS.Endpoint == "" || carriesSecretsSafely(c.KMS.Endpoint), "kms.endpoint", secureForm+", or empty")
	f.duration("kms.timeout", c.KMS.Timeout, time.Millisecond)

	f.duration("data_keys.max_age", c.DataKeys.MaxAge, time.Second)
	sets := int64(1 << 32) // AES-GCM's limit with random nonces
	if c.DataKeys.PerUser {
		sets >>= 8 // each of up to 256 workers counts only its own
	}
	f.amount("data_keys.max_sets", c.DataKeys.MaxSets, 1, sets)
	f.amount("data_keys.max_bytes", c.DataKeys.MaxBytes, 1, 1<<50)
	f.count("data_keys.cache_size", c.DataKeys.CacheSize, 1, 1_000_000)
	f.duration("data_keys.cache_age", c.DataKeys.CacheAge, time.Second)
	f.duration("data_keys.outage", c.DataKeys.Outage, 0)
}

const secureForm = "must be an https:// address without credentials and query (http:// on the loopback interface only)"

func (c Config) checkMesh(f *faults) {
	f.unless(carriesSecretsSafely(c.Mesh.URL), "mesh.url", secureForm)
	f.required(visible.MatchString(c.Mesh.ClientID), c.Mesh.ClientID != "", "mesh.client_id", "is required: up to 256 ASCII characters without spaces")
	f.required(!c.Mesh.ClientSecret.Empty(), false, "mesh.client_secret", "is required")
	f.duration("mesh.timeout", c.Mesh.Timeout, time.Millisecond)
	for _, broker := range c.Mesh.AccessTokenBrokers {
		f.unless(brokerType.MatchString(broker), "mesh.access_token_brokers", brokerTypeForm)
	}
}
