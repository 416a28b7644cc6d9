package config

import (
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// NATS is the connection to NATS. Of username and password, token, seed and
// credentials file at most one way to authenticate may be set.
type NATS struct {
	// Servers of the cluster, comma separated, with scheme nats, tls, ws or wss.
	// A user and password (or a token) written into them must be the same in all; they are moved
	// into username and password (or token).
	URL string `yaml:"url"`
	// User name, together with the password.
	Username string `yaml:"username"`
	// Password of the user.
	Password secret.Text `yaml:"password"`
	// Authentication token.
	Token secret.Text `yaml:"token"`
	// Seed of a user NKey; it begins with SU.
	NKeySeed secret.Text `yaml:"nkey_seed"`
	// Path of a credentials file with JWT and seed.
	CredsFile string `yaml:"creds_file"`
	// Path of a PEM file with the certificate authorities that may have signed the servers'
	// certificates. When empty: those of the system.
	CAFile string `yaml:"ca_file"`
	// Path of a PEM file with the client's certificate, together with key_file.
	CertFile string `yaml:"cert_file"`
	// Path of a PEM file with the key of the client's certificate.
	KeyFile string `yaml:"key_file"`
	// First part of the subjects on which answers arrive. Permissions in NATS can keep others from
	// listening there, if each client has its own.
	InboxPrefix string `yaml:"inbox_prefix"`
	// Put before subjects and stream names. Letters, digits and dash; may be empty.
	Prefix string `yaml:"prefix"`
	// Copies of each stream in the cluster, 1 to 5.
	Replicas int `yaml:"replicas"`
	// Number of streams over which the refreshes are spread, 1 to 256, the same in all workers.
	// One does for millions of grants; docs/scale.md says how many more take, docs/upgrading.md how to change it.
	Partitions int `yaml:"partitions"`
	// Create the streams although the database remembers streams that are gone and it can't be
	// told whether NATS was wiped or runs with another encryption key. Set it once
	// the former is certain, and take it out again.
	RecreateStreams bool `yaml:"recreate_streams"`
	// Take the streams over although they belong to another database, and the database although it
	// belongs to workers with another prefix. Set it for one start, once it is certain that
	// no other workers use either, and take it out again.
	AdoptStreams bool `yaml:"adopt_streams"`
	// Longest time that one attempt to connect may take.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
}

// Subjects returns the names of the installation's subjects and streams.
func (n NATS) Subjects() events.Subjects {
	return events.Subjects{Prefix: n.Prefix, Partitions: n.Partitions}
}

// MongoDB is the database that holds the grants.
type MongoDB struct {
	// Connection string, mongodb:// or mongodb+srv://. It counts as a secret because
	// it may hold a password, whose special characters must be percent-encoded. Read
	// preference, read and write concern and timeouts in it have no effect.
	URI secret.Text `yaml:"uri"`
	// Name of the database. Letters, digits, dash and underscore, at most 63.
	Database string `yaml:"database"`
	// Longest time that one operation may take.
	Timeout time.Duration `yaml:"timeout"`
}

// KMS is the key management service that wraps the data keys. Its credentials
// come from where the AWS SDK looks for them.
type KMS struct {
	// Key that wraps the data keys: its id, ARN or alias. Required.
	KeyID string `yaml:"key_id"`
	// AWS Region of the key. When empty: where the AWS SDK looks for it.
	Region string `yaml:"region"`
	// Another address of the service, https:// (http:// on the loopback interface only).
	// When empty: AWS's own.
	Endpoint string `yaml:"endpoint"`
	// Longest time that one call may take.
	Timeout time.Duration `yaml:"timeout"`
}

// DataKeys bounds the use of the keys that seal token sets. A new data key is
// made as soon as the one in use reaches any of its three bounds.
type DataKeys struct {
	// Give each user data keys of their own, so that deleting them makes even backups of that
	// user's tokens unreadable. It costs calls to KMS for each user; see keys.
	PerUser bool `yaml:"per_user"`
	// How long a data key seals.
	MaxAge time.Duration `yaml:"max_age"`
	// Number of token sets sealed with one data key, at most 4294967296 (16777216 with
	// per_user, since workers then share data keys and each counts for itself).
	MaxSets int64 `yaml:"max_sets"`
	// Bytes sealed with one data key.
	MaxBytes int64 `yaml:"max_bytes"`
	// Number of unwrapped data keys kept in memory for opening, and of those for sealing.
	CacheSize int `yaml:"cache_size"`
	// How long an unwrapped data key is kept for opening before KMS is asked again. It stays in
	// memory for this and the time of outage.
	CacheAge time.Duration `yaml:"cache_age"`
	// How much longer data keys seal and open while KMS can't be reached. When KMS refuses
	// (a disabled key, a permission taken away) they end at once. 0: no longer.
	Outage time.Duration `yaml:"outage"`
}

// Mesh is the client of Mesh's HTTP interface.
type Mesh struct {
	// Address of Mesh, https:// (http:// on the loopback interface only).
	URL string `yaml:"url"`
	// Client id that Mesh issued. Required.
	ClientID string `yaml:"client_id"`
	// Client secret that Mesh issued. Required.
	ClientSecret secret.Text `yaml:"client_secret"`
	// Longest time that one call may take.
	Timeout time.Duration `yaml:"timeout"`
	// Whether a disconnect also removes the account at Mesh (DELETE /api/v1/account).
	RemoveOnDisconnect bool `yaml:"remove_on_disconnect"`
	// Broker types, in any case, whose refresh needs the access token besides the refresh token.
	AccessTokenBrokers []string `yaml:"access_token_brokers"`
}
