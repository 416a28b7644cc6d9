package config

import "time"

// Refresh decides when and how grants are refreshed.
type Refresh struct {
	// How long a worker's lease on a grant lasts. Longer than mesh.timeout + mongodb.timeout +
	// kms.timeout + worker.clock_skew, so that no other worker takes over before the answer is stored.
	Lease time.Duration `yaml:"lease"`
	// Number of refreshes that this worker makes at once.
	Concurrency int `yaml:"concurrency"`
	// How early access tokens are refreshed.
	AccessToken Margin `yaml:"access_token"`
	// How early a grant is refreshed to renew its refresh token.
	RefreshToken Margin `yaml:"refresh_token"`
	// Policies by broker type (upper and lower case are the same), each with any of access_token, refresh_token
	// and keep_alive. A margin takes what it does not set from refresh.access_token or refresh.refresh_token.
	// keep_alive is the longest time between two refreshes, at least 1s, for refresh tokens that end when nobody
	// uses them. Without it there is no such limit.
	Brokers map[string]BrokerPolicy `yaml:"brokers"`
	// Pause between attempts while refreshes of a grant fail.
	Backoff Backoff `yaml:"backoff"`
	// Pause while Mesh or the broker limits the rate.
	RateLimited Backoff `yaml:"rate_limited"`
	// Pause of all refreshes while Mesh refuses the client id and secret.
	Credentials Backoff `yaml:"credentials"`
	// How far ahead refreshes are scheduled in NATS; the reconciler schedules the rest later.
	// Longer than reconcile.interval.
	Horizon time.Duration `yaml:"horizon"`
	// How long to retry with the old refresh token when it is not known whether an attempt used it up.
	Grace time.Duration `yaml:"grace"`
	// When to stop expiring the grants of a broker for refusals, until a refresh there succeeds or an operator decides.
	Hold Hold `yaml:"hold"`
}

// Hold says when the verdicts at one broker are held.
type Hold struct {
	// Number of grants of the broker refused in a row, without a successful refresh in between. 0: never.
	Grants int `yaml:"grants"`
	// The time within which they were refused.
	Within time.Duration `yaml:"within"`
}

// Margin says how long before its end a token is renewed: a share of its
// lifetime, at least Min and at most Max.
type Margin struct {
	// Share of the token's lifetime, from 0 up to but not including 1.
	Share float64 `yaml:"share"`
	// Smallest margin.
	Min time.Duration `yaml:"min"`
	// Largest margin.
	Max time.Duration `yaml:"max"`
	// Largest random addition, as a share of the margin, 0 to 1.
	Jitter float64 `yaml:"jitter"`
}

// BrokerPolicy overrides margins for one broker type; nil means no override.
type BrokerPolicy struct {
	AccessToken  *Margin `yaml:"access_token,omitempty"`
	RefreshToken *Margin `yaml:"refresh_token,omitempty"`
	// KeepAlive is the longest time between two refreshes; 0: no limit.
	KeepAlive time.Duration `yaml:"keep_alive"`
}

// Backoff is a pause that grows from Min to Max.
type Backoff struct {
	// First pause.
	Min time.Duration `yaml:"min"`
	// Longest pause.
	Max time.Duration `yaml:"max"`
}

// Limits protects Mesh and the brokers. Rates and bursts are those of the installation: each worker takes its share,
// the same in all. The rest holds for each worker.
type Limits struct {
	// Refreshes per second of all workers, all brokers together.
	Rate float64 `yaml:"rate"`
	// Refreshes of all workers that may start at once, beyond the rate.
	Burst int `yaml:"burst"`
	// Refreshes per second of all workers at one broker.
	BrokerRate float64 `yaml:"broker_rate"`
	// Refreshes of all workers at one broker that may start at once, beyond its rate.
	BrokerBurst int `yaml:"broker_burst"`
	// Number of refreshes of one worker at once at one broker.
	BrokerConcurrency int `yaml:"broker_concurrency"`
	// Number of consecutive failures after which refreshes at a broker are suspended.
	BreakerFailures int `yaml:"breaker_failures"`
	// How long refreshes at a broker stay suspended.
	BreakerOpen time.Duration `yaml:"breaker_open"`
}

// Connect configures the handling of new integrations, and the keys that publishers seal them to.
type Connect struct {
	// Number of messages that this worker handles at once.
	Concurrency int `yaml:"concurrency"`
	// Size limit of an event, in bytes, from 1024 to 67108864.
	MaxBytes int `yaml:"max_bytes"`
	// Refuse connects that are not sealed. Their bodies are not kept, not even as dead letters.
	RequireSealed bool `yaml:"require_sealed"`
	// How long publishers seal to a key before a new one replaces it. At least connect.key_overlap.
	KeyRotation time.Duration `yaml:"key_rotation"`
	// How long workers still publish a replaced key next to the new one. Publishers must fetch the keys
	// at least this often.
	KeyOverlap time.Duration `yaml:"key_overlap"`
	// How long a replaced key still opens connects and dead letters before it is deleted. At least
	// connect.key_overlap + retention.dead_letters.
	KeyRetention time.Duration `yaml:"key_retention"`
}

// Messages configures the delivery of messages from NATS.
type Messages struct {
	// Time without a sign of progress after which NATS delivers a message again, at least 1s. Workers signal
	// progress three times as often.
	AckWait time.Duration `yaml:"ack_wait"`
	// Number of attempts after which a message becomes a dead letter.
	MaxDeliver int `yaml:"max_deliver"`
	// Pause between attempts.
	Backoff Backoff `yaml:"backoff"`
}

// Tokens configures the answers to token requests.
type Tokens struct {
	// Shortest remaining lifetime of a token in a reply, if the request does not state one. A token with
	// more than half of its lifetime left is always good enough.
	MinTTL time.Duration `yaml:"min_ttl"`
	// Shortest time between two reports of a refused access token that each refresh the same grant.
	RefusedPause time.Duration `yaml:"refused_pause"`
	// How long a request may wait for a refresh.
	Timeout time.Duration `yaml:"timeout"`
	// Number of database reads for requests at once, and of requests of one client that may wait for refreshes
	// at one broker. Answers from memory do not count.
	Concurrency int `yaml:"concurrency"`
	// How long a worker answers from the encrypted documents in its memory before it reads them again. A
	// change ends this at once, as a rule within milliseconds; the limit is for lost messages about changes.
	// 0: every request reads.
	CacheAge time.Duration `yaml:"cache_age"`
	// Number of users whose documents are kept in memory.
	CacheUsers int `yaml:"cache_users"`
	// Inbox prefixes of the clients. A request gets an answer only if its reply subject begins with one of them,
	// in whole subject tokens, or if it crosses accounts. A * at the end stands for the rest of a token.
	InboxPrefixes []string `yaml:"inbox_prefixes"`
}

// Reconcile configures the loop that completes what a lost message or a crash left
// undone.
type Reconcile struct {
	// Time between two passes of the loop.
	Interval time.Duration `yaml:"interval"`
	// Number of grants in one read.
	Batch int `yaml:"batch"`
	// How long a grant is overdue before the reconciler acts.
	Slack time.Duration `yaml:"slack"`
}

// Retention says how long records are kept that are no longer needed.
type Retention struct {
	// How long the record of an expired grant is kept.
	Expired time.Duration `yaml:"expired"`
	// How long a disconnect is remembered, so that a connect event from before it that arrives late has no effect.
	Revocations time.Duration `yaml:"revocations"`
	// How long lifecycle events are kept.
	Events time.Duration `yaml:"events"`
	// How long dead letters are kept.
	DeadLetters time.Duration `yaml:"dead_letters"`
	// How long audit records are kept.
	Audit time.Duration `yaml:"audit"`
}
