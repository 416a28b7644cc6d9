package config

import (
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// NATS is the connection to NATS. Set at most one way to authenticate: username and
// password, token, NKey seed or credentials file.
type NATS struct {
	// Servers of the cluster, comma separated, with the scheme nats, tls, ws or wss.
	// They may contain a user and password (or a token), the same in all of them; Latchkey reads these as
	// username and password (or token).
	URL string `yaml:"url"`
	// User name; needs the password.
	Username string `yaml:"username"`
	// Password of the user.
	Password secret.Text `yaml:"password"`
	// Authentication token.
	Token secret.Text `yaml:"token"`
	// Seed of a user NKey. It begins with SU.
	NKeySeed secret.Text `yaml:"nkey_seed"`
	// Path of a credentials file with a JWT and a seed.
	CredsFile string `yaml:"creds_file"`
	// Path of a PEM file with the certificate authorities to trust for the servers'
	// certificates. When empty: those of the system.
	CAFile string `yaml:"ca_file"`
	// Path of a PEM file with the client's certificate; needs key_file.
	CertFile string `yaml:"cert_file"`
	// Path of a PEM file with the key of that certificate.
	KeyFile string `yaml:"key_file"`
	// Prefix of the subjects on which replies arrive. If each client has its own, NATS permissions
	// can keep the others from listening there.
	InboxPrefix string `yaml:"inbox_prefix"`
	// Prefix of all subjects and stream names. Letters, digits and dashes; may be empty.
	Prefix string `yaml:"prefix"`
	// Number of replicas of each stream when it is made, 1 to 5. A stream that is there keeps its own.
	Replicas int `yaml:"replicas"`
	// Number of streams that share the refreshes, and of those that share the events and the audit log,
	// 1 to 256, the same in all workers. One is enough for millions of grants; docs/scale.md says when to use more, docs/upgrading.md how to change the number.
	Partitions int `yaml:"partitions"`
	// Whether workers make the streams and keep what they need of them. Set it to false where Terraform, NACK or
	// the like makes them: workers then change no stream, and end with a list of what they lack (docs/streams.md).
	ManageStreams bool `yaml:"manage_streams"`
	// Create the streams although the database remembers streams that are gone, and the worker can't tell
	// whether NATS was wiped or runs with another encryption key. Set it for one start, when you are
	// certain that NATS was wiped, and remove it again.
	RecreateStreams bool `yaml:"recreate_streams"`
	// Take over streams that belong to another database, and a database that belongs to workers with
	// another prefix. Set it for one start, when you are certain that no other workers use either, and
	// remove it again.
	AdoptStreams bool `yaml:"adopt_streams"`
	// Time limit for one attempt to connect.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
}

// Subjects returns the names of the installation's subjects and streams.
func (n NATS) Subjects() events.Subjects {
	return events.Subjects{Prefix: n.Prefix, Partitions: n.Partitions}
}

// MongoDB is the database that holds the grants.
type MongoDB struct {
	// Connection string, mongodb:// or mongodb+srv://. It is treated as a secret because it may contain a
	// password. Percent-encode special characters in user and password. Read preference, read and write
	// concern and timeouts in it have no effect.
	URI secret.Text `yaml:"uri"`
	// Name of the database. Letters, digits, dashes and underscores, at most 63.
	Database string `yaml:"database"`
	// Time limit for one operation.
	Timeout time.Duration `yaml:"timeout"`
}

// KMS is the key management service that wraps the data keys. The AWS SDK finds the
// credentials for it.
type KMS struct {
	// Key that wraps the data keys: its id, ARN or alias. Required.
	KeyID string `yaml:"key_id"`
	// AWS Region of the key. When empty: the one that the AWS SDK finds, or else that in key_id.
	Region string `yaml:"region"`
	// Address of the service, https:// (http:// on the loopback interface only). When empty: AWS's own.
	Endpoint string `yaml:"endpoint"`
	// Time limit for one call.
	Timeout time.Duration `yaml:"timeout"`
}

// DataKeys limits the use of the keys that encrypt token sets. A data key is replaced
// when it reaches max_age, max_sets or max_bytes.
type DataKeys struct {
	// Give each user their own data keys, so that deleting these makes even backups of the user's tokens
	// unreadable. This costs calls to KMS for each user; see docs/keys.md.
	PerUser bool `yaml:"per_user"`
	// How long a data key encrypts.
	MaxAge time.Duration `yaml:"max_age"`
	// Number of token sets that one data key encrypts, at most 4294967296 (16777216 with
	// per_user, because workers then share data keys and each counts only its own use).
	MaxSets int64 `yaml:"max_sets"`
	// Number of bytes that one data key encrypts.
	MaxBytes int64 `yaml:"max_bytes"`
	// Number of plaintext data keys kept in memory for decryption, and the same number for encryption.
	CacheSize int `yaml:"cache_size"`
	// How long a plaintext data key decrypts before the worker calls KMS again. The key stays in memory
	// for this time plus outage.
	CacheAge time.Duration `yaml:"cache_age"`
	// How much longer data keys encrypt and decrypt while KMS can't be reached. When KMS refuses
	// (a disabled key, a revoked permission), their use ends at once. 0: no longer.
	Outage time.Duration `yaml:"outage"`
}

// Mesh configures the calls to Mesh's HTTP API.
type Mesh struct {
	// Base address of the API, https:// (http:// on the loopback interface only).
	URL string `yaml:"url"`
	// Client id that Mesh issued. Required.
	ClientID string `yaml:"client_id"`
	// Client secret that Mesh issued. Required.
	ClientSecret secret.Text `yaml:"client_secret"`
	// Time limit for one call.
	Timeout time.Duration `yaml:"timeout"`
	// Whether a disconnect also removes the account at Mesh (DELETE /api/v1/account).
	RemoveOnDisconnect bool `yaml:"remove_on_disconnect"`
	// Broker types (upper and lower case are the same) whose refresh needs the access token as well as the refresh token.
	AccessTokenBrokers []string `yaml:"access_token_brokers"`
}
