package config

import (
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

const day = 24 * time.Hour

// Default returns the default configuration. It is not valid: the KMS key and the Mesh
// credentials have no default, and [Load] generates Worker.ID.
func Default() Config {
	return Config{
		Worker: Worker{Grace: 30 * time.Second, ClockSkew: 10 * time.Second, LockMemory: "auto"},
		Log:    Log{Level: "info", Format: "json"},
		Admin:  Admin{Listen: "127.0.0.1:9464"},
		NATS:   NATS{URL: "nats://127.0.0.1:4222", InboxPrefix: "_INBOX", Replicas: 1, Partitions: 1, ManageStreams: true, ConnectTimeout: 10 * time.Second},
		MongoDB: MongoDB{
			URI:      secret.New("mongodb://127.0.0.1:27017"),
			Database: "latchkey",
			Timeout:  10 * time.Second,
		},
		KMS: KMS{Timeout: 5 * time.Second},
		DataKeys: DataKeys{
			MaxAge:    day,
			MaxSets:   1 << 20,
			MaxBytes:  1 << 33,
			CacheSize: 1000,
			CacheAge:  time.Hour,
			Outage:    4 * time.Hour,
		},
		Mesh: Mesh{
			URL:                "https://integration-api.meshconnect.com",
			Timeout:            20 * time.Second,
			AccessTokenBrokers: []string{"weBull", "vanguard"},
		},
		Refresh: Refresh{
			Lease:        time.Minute,
			Concurrency:  32,
			AccessToken:  Margin{Share: 0.2, Min: time.Minute, Max: 30 * time.Minute, Jitter: 0.2},
			RefreshToken: Margin{Share: 0.2, Min: time.Hour, Max: 7 * day, Jitter: 0.2},
			Backoff:      Backoff{Min: 2 * time.Second, Max: 15 * time.Minute},
			RateLimited:  Backoff{Min: 5 * time.Second, Max: 5 * time.Minute},
			Credentials:  Backoff{Min: 10 * time.Second, Max: 10 * time.Minute},
			Horizon:      day,
			Grace:        10 * time.Minute,
			Hold:         Hold{Grants: 3, Within: 6 * time.Hour},
		},
		Limits: Limits{
			Rate:              100,
			Burst:             100,
			BrokerRate:        50,
			BrokerBurst:       50,
			BrokerConcurrency: 16,
			BreakerFailures:   20,
			BreakerOpen:       30 * time.Second,
		},
		Connect: Connect{Concurrency: 64, MaxBytes: 1 << 20, KeyRotation: 30 * day, KeyOverlap: day, KeyRetention: 60 * day},
		Messages: Messages{
			AckWait:    30 * time.Second,
			MaxDeliver: 20,
			Backoff:    Backoff{Min: time.Second, Max: time.Minute},
		},
		Tokens: Tokens{
			MinTTL: time.Minute, RefusedPause: 5 * time.Minute, Timeout: 25 * time.Second, Concurrency: 256, CacheAge: 5 * time.Second, CacheUsers: 10_000,
			InboxPrefixes: []string{"_INBOX", "_INBOX_*"},
		},
		Reconcile: Reconcile{Interval: 30 * time.Second, Batch: 500, Slack: 15 * time.Second},
		Retention: Retention{
			Expired:     7 * day,
			Revocations: 30 * day,
			Events:      7 * day,
			DeadLetters: 30 * day,
			Audit:       400 * day,
		},
		Audit:   Audit{Mode: AuditRequired, Timeout: 2 * time.Second},
		Tracing: Tracing{Sample: 1, ServiceName: "latchkey"},
	}
}
