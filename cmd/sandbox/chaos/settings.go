package chaos

import (
	"fmt"
	"time"
)

// Times of a run. The institutions' grace covers a lease that has to expire; leases and calls
// are short so that a run is.
const (
	// DefaultLifetime of access tokens.
	DefaultLifetime = 24 * time.Second

	refreshGrace      = 45 * time.Second
	clockSkew         = 2 * time.Second
	leastLifetime     = 10 * clockSkew
	lease             = 11 * time.Second
	meshTimeout       = 2 * time.Second
	tokensTimeout     = 8 * time.Second
	credentialsLife   = 3 * time.Second
	ackWait           = 3 * time.Second
	reconcileInterval = 5 * time.Second // each look reads the whole collection of the embedded database
	settleWithin      = 6 * time.Minute
)

var brokers = []string{"coinbase", "kraken", "binance"}

// Users of NATS. Only the password of the workers changes during a run.
const (
	workerUser, workerPassword = "worker", "worker-password"
	chaosUser, chaosPassword   = "chaos", "chaos-password"
	systemUser                 = "system"
)

// settings of a worker, which must notice failures and retry quickly.
func settings() []string {
	return []string{
		"LATCHKEY_LOG_LEVEL=info",
		"LATCHKEY_WORKER_CLOCK_SKEW=" + clockSkew.String(),
		"LATCHKEY_WORKER_GRACE=20s",
		"LATCHKEY_NATS_USERNAME=" + workerUser,
		"LATCHKEY_NATS_PASSWORD=" + workerPassword,
		"LATCHKEY_MESH_TIMEOUT=" + meshTimeout.String(),
		"LATCHKEY_MONGODB_TIMEOUT=4s",
		"LATCHKEY_KMS_TIMEOUT=2s",
		"LATCHKEY_DATA_KEYS_CACHE_AGE=2s",
		"LATCHKEY_DATA_KEYS_MAX_AGE=5s",
		"LATCHKEY_REFRESH_LEASE=" + lease.String(),
		"LATCHKEY_REFRESH_GRACE=" + refreshGrace.String(),
		"LATCHKEY_REFRESH_ACCESS_TOKEN_SHARE=0.5",
		"LATCHKEY_REFRESH_ACCESS_TOKEN_MIN=1s",
		"LATCHKEY_REFRESH_BACKOFF_MIN=200ms",
		"LATCHKEY_REFRESH_BACKOFF_MAX=8s",
		"LATCHKEY_REFRESH_RATE_LIMITED_MIN=200ms",
		"LATCHKEY_REFRESH_RATE_LIMITED_MAX=4s",
		"LATCHKEY_LIMITS_RATE=500",
		"LATCHKEY_LIMITS_BURST=500",
		"LATCHKEY_LIMITS_BROKER_RATE=300",
		"LATCHKEY_LIMITS_BROKER_BURST=300",
		"LATCHKEY_LIMITS_BROKER_CONCURRENCY=8",
		"LATCHKEY_LIMITS_BREAKER_OPEN=2s",
		"LATCHKEY_CONNECT_CONCURRENCY=4",
		"LATCHKEY_REFRESH_CONCURRENCY=16",
		"LATCHKEY_MESSAGES_ACK_WAIT=" + ackWait.String(),
		"LATCHKEY_MESSAGES_BACKOFF_MIN=200ms",
		"LATCHKEY_MESSAGES_BACKOFF_MAX=3s",
		"LATCHKEY_RECONCILE_INTERVAL=" + reconcileInterval.String(),
		"LATCHKEY_RECONCILE_SLACK=2s",
		fmt.Sprintf("LATCHKEY_RECONCILE_BATCH=%d", reconcileBatch),
		"LATCHKEY_TOKENS_MIN_TTL=3s",
		"LATCHKEY_TOKENS_REFUSED_PAUSE=1s",
		"LATCHKEY_TOKENS_TIMEOUT=" + tokensTimeout.String(),
		fmt.Sprintf("LATCHKEY_TOKENS_CONCURRENCY=%d", tokensConcurrency),
	}
}

// Bounds that a scene can reach on a small machine.
const (
	tokensConcurrency = 16
	reconcileBatch    = 50
)
