package config

import "time"

// Refresh decides when and how grants are refreshed.
type Refresh struct {
	// How long a worker holds the right to refresh a grant. Longer than mesh.timeout +
	// mongodb.timeout + kms.timeout + worker.clock_skew, so that no other
	// worker takes over before the answer is stored.
	Lease time.Duration `yaml:"lease"`
	// Number of refreshes at once in this worker.
	Concurrency int `yaml:"concurrency"`
	// How early access tokens are refreshed.
	AccessToken Margin `yaml:"access_token"`
	// How early refresh tokens are renewed.
	RefreshToken Margin `yaml:"refresh_token"`
	// Policies by broker type, in any case, each with any of access_token, refresh_token and keep_alive. What a
	// margin here leaves out it takes from refresh.access_token or refresh.refresh_token. keep_alive is a duration, at least 1s:
	// grants are refreshed at least so often, however long their access tokens live, so that a refresh token that
	// dies from disuse doesn't. Without it: never for its own sake.
	Brokers map[string]BrokerPolicy `yaml:"brokers"`
	// Pause between attempts while refreshes of a grant fail.
	Backoff Backoff `yaml:"backoff"`
	// Pause while Mesh or the broker answers that there are too many requests.
	RateLimited Backoff `yaml:"rate_limited"`
	// Pause of all refreshes while Mesh refuses the client's credentials.
	Credentials Backoff `yaml:"credentials"`
	// Schedules are put into NATS only this far ahead; the reconciler brings in
	// the rest. Longer than reconcile.interval.
	Horizon time.Duration `yaml:"horizon"`
	// How long the old refresh token is tried after an outcome that leaves open whether it was spent.
	Grace time.Duration `yaml:"grace"`
	// When no grant of a broker expires for a refusal any more, until a refresh there succeeds or an operator decides.
	Hold Hold `yaml:"hold"`
}

// Hold says after what verdicts at a broker are held.
type Hold struct {
	// So many grants of the broker refused in a row, and none refreshed between. 0: never.
	Grants int `yaml:"grants"`
	// The time within which they were.
	Within time.Duration `yaml:"within"`
}

// Margin says how long before its end a token is renewed: a share of its
// lifetime, but never less than Min nor more than Max.
type Margin struct {
	// Share of the token's lifetime, from 0 up to but not including 1.
	Share float64 `yaml:"share"`
	// Least margin.
	Min time.Duration `yaml:"min"`
	// Largest margin.
	Max time.Duration `yaml:"max"`
	// Share of the margin by which the moment is spread earlier, 0 to 1.
	Jitter float64 `yaml:"jitter"`
}

// BrokerPolicy overrides margins for one broker type; nil means no override.
type BrokerPolicy struct {
	AccessToken  *Margin `yaml:"access_token,omitempty"`
	RefreshToken *Margin `yaml:"refresh_token,omitempty"`
	// KeepAlive is the longest time between two refreshes; 0: no bound.
	KeepAlive time.Duration `yaml:"keep_alive"`
}

// Backoff is a pause that grows from Min to Max.
type Backoff struct {
	// First pause.
	Min time.Duration `yaml:"min"`
	// Longest pause.
	Max time.Duration `yaml:"max"`
}

// Limits protects Mesh and the brokers from this worker.
type Limits struct {
	// Refreshes a second, all brokers together.
	Rate float64 `yaml:"rate"`
	// Refreshes that may start at once above the rate.
	Burst int `yaml:"burst"`
	// Refreshes a second at one broker.
	BrokerRate float64 `yaml:"broker_rate"`
	// Refreshes at one broker that may start at once above its rate.
	BrokerBurst int `yaml:"broker_burst"`
	// Number of refreshes at once at one broker.
	BrokerConcurrency int `yaml:"broker_concurrency"`
	// Consecutive failures after which refreshes at a broker are suspended.
	BreakerFailures int `yaml:"breaker_failures"`
	// How long refreshes at a broker stay suspended.
	BreakerOpen time.Duration `yaml:"breaker_open"`
}

// Connect governs the handling of new integrations, and the keys that publishers seal them to.
type Connect struct {
	// Number of messages handled at once.
	Concurrency int `yaml:"concurrency"`
	// Largest accepted event, in bytes, from 1024 up to 67108864.
	MaxBytes int `yaml:"max_bytes"`
	// Whether a connect that is not sealed is refused. Its body is not kept then, not even as a dead letter.
	RequireSealed bool `yaml:"require_sealed"`
	// How long publishers seal to a key before the next takes its place. At least
	// connect.key_overlap.
	KeyRotation time.Duration `yaml:"key_rotation"`
	// How long a key that was replaced is still given out beside the new one. Publishers fetch
	// the keys at least this often.
	KeyOverlap time.Duration `yaml:"key_overlap"`
	// How long a key that was replaced still opens connects and dead letters; then it is
	// deleted. At least connect.key_overlap + retention.dead_letters.
	KeyRetention time.Duration `yaml:"key_retention"`
}

// Messages governs the delivery of messages from NATS.
type Messages struct {
	// Time without a sign of life after which NATS delivers a message again. Signals are
	// sent at a third of it. At least 1s.
	AckWait time.Duration `yaml:"ack_wait"`
	// Number of attempts before a message becomes a dead letter.
	MaxDeliver int `yaml:"max_deliver"`
	// Pause between the attempts.
	Backoff Backoff `yaml:"backoff"`
}

// Tokens governs the answers to requests for tokens.
type Tokens struct {
	// Least lifetime that a token should have left when it is handed out, if the request does not
	// state one. A token with more than half of its lifetime left is handed out as it is.
	MinTTL time.Duration `yaml:"min_ttl"`
	// How long after a report of a refused access token the next one of the same grant counts.
	RefusedPause time.Duration `yaml:"refused_pause"`
	// How long a request may wait for a refresh.
	Timeout time.Duration `yaml:"timeout"`
	// Number of reads for requests at once, and of requests of one client that may wait for
	// refreshes at one broker. What can be answered from memory is not counted.
	Concurrency int `yaml:"concurrency"`
	// How long a worker may answer from the sealed documents that it has read, without reading them
	// again, unless an event announces a change. Such events arrive within milliseconds; this
	// bounds the effect of a lost one. 0: every request reads.
	CacheAge time.Duration `yaml:"cache_age"`
	// Number of users whose documents are kept.
	CacheUsers int `yaml:"cache_users"`
	// Inbox prefixes of the clients: a request is answered only if its reply subject begins with
	// one of these, in whole subject tokens, or crosses accounts. A * at the end stands for the
	// rest of a token.
	InboxPrefixes []string `yaml:"inbox_prefixes"`
}

// Reconcile governs the loop that makes good whatever a lost message or a
// crash left undone.
type Reconcile struct {
	// Time between two passes.
	Interval time.Duration `yaml:"interval"`
	// Number of grants read at once.
	Batch int `yaml:"batch"`
	// How far overdue a grant is before the reconciler acts.
	Slack time.Duration `yaml:"slack"`
}

// Retention sets how long records stay that are no longer needed.
type Retention struct {
	// How long the record of an expired grant stays.
	Expired time.Duration `yaml:"expired"`
	// How long a disconnect is remembered against connect events that arrive late.
	Revocations time.Duration `yaml:"revocations"`
	// How long lifecycle events stay in their stream.
	Events time.Duration `yaml:"events"`
	// How long dead letters stay.
	DeadLetters time.Duration `yaml:"dead_letters"`
	// How long the audit log goes back.
	Audit time.Duration `yaml:"audit"`
}
