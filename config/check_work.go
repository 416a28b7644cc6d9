package config

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
)

// CallAndSave is the time limit for a call to Mesh and for storing its answer.
func (c Config) CallAndSave() time.Duration { return c.Mesh.Timeout + c.MongoDB.Timeout }

func (c Config) checkRefresh(f *faults) {
	r := c.Refresh
	f.duration("refresh.lease", r.Lease, time.Second)
	needed := c.CallAndSave() + c.KMS.Timeout + c.Worker.ClockSkew
	f.unless(r.Lease > needed, "refresh.lease", fmt.Sprintf(
		"must be longer than mesh.timeout + mongodb.timeout + kms.timeout + worker.clock_skew (%s)", short(needed)))
	f.count("refresh.concurrency", r.Concurrency, 1, 10_000)
	f.margin("refresh.access_token", r.AccessToken)
	f.margin("refresh.refresh_token", r.RefreshToken)
	known := map[string]bool{}
	for _, broker := range slices.Sorted(maps.Keys(r.Brokers)) {
		f.unless(!known[events.BrokerKey(broker)], brokerKey(broker), "must be given only once; case makes no difference")
		known[events.BrokerKey(broker)] = true
		f.unless(brokerType.MatchString(broker), brokersKey, brokerTypeForm)
		policy := r.Brokers[broker]
		if policy.AccessToken != nil {
			f.margin(brokerKey(broker)+".access_token", *policy.AccessToken)
		}
		if policy.RefreshToken != nil {
			f.margin(brokerKey(broker)+".refresh_token", *policy.RefreshToken)
		}
		if policy.KeepAlive != 0 {
			f.duration(brokerKey(broker)+".keep_alive", policy.KeepAlive, time.Second)
		}
	}
	f.backoff("refresh.backoff", r.Backoff)
	f.backoff("refresh.rate_limited", r.RateLimited)
	f.backoff("refresh.credentials", r.Credentials)
	f.duration("refresh.horizon", r.Horizon, time.Second)
	f.unless(r.Horizon > c.Reconcile.Interval, "refresh.horizon",
		fmt.Sprintf("must be longer than reconcile.interval (%s)", short(c.Reconcile.Interval)))
	f.duration("refresh.grace", r.Grace, 0)
	f.count("refresh.hold.grants", r.Hold.Grants, 0, 100)
	f.duration("refresh.hold.within", r.Hold.Within, time.Second)
}

// brokerKey is the key of a broker type's policy.
func brokerKey(broker string) string {
	if !word.MatchString(broker) {
		broker = "…"
	}
	return brokersKey + "." + broker
}

func (c Config) checkFlow(f *faults) {
	f.rate("limits.rate", c.Limits.Rate)
	f.count("limits.burst", c.Limits.Burst, 1, 1_000_000)
	f.rate("limits.broker_rate", c.Limits.BrokerRate)
	f.count("limits.broker_burst", c.Limits.BrokerBurst, 1, 1_000_000)
	f.count("limits.broker_concurrency", c.Limits.BrokerConcurrency, 1, 10_000)
	f.count("limits.breaker_failures", c.Limits.BreakerFailures, 1, 1_000_000)
	f.duration("limits.breaker_open", c.Limits.BreakerOpen, time.Millisecond)

	f.count("connect.concurrency", c.Connect.Concurrency, 1, 10_000)
	f.count("connect.max_bytes", c.Connect.MaxBytes, 1<<10, 64<<20) // 64 MiB is NATS's own bound

	f.duration("connect.key_overlap", c.Connect.KeyOverlap, time.Second)
	f.duration("connect.key_rotation", c.Connect.KeyRotation, time.Second)
	f.atLeast("connect.key_rotation", c.Connect.KeyRotation, c.Connect.KeyOverlap, "connect.key_overlap")
	f.duration("connect.key_retention", c.Connect.KeyRetention, time.Second)
	f.atLeast("connect.key_retention", c.Connect.KeyRetention, c.Connect.KeyOverlap+c.Retention.DeadLetters, "connect.key_overlap + retention.dead_letters")

	f.duration("messages.ack_wait", c.Messages.AckWait, time.Second)
	f.count("messages.max_deliver", c.Messages.MaxDeliver, 1, 1_000_000)
	f.backoff("messages.backoff", c.Messages.Backoff)

	f.duration("tokens.min_ttl", c.Tokens.MinTTL, 0)
	f.duration("tokens.refused_pause", c.Tokens.RefusedPause, time.Millisecond)
	f.duration("tokens.timeout", c.Tokens.Timeout, time.Millisecond)
	f.count("tokens.concurrency", c.Tokens.Concurrency, 1, 10_000)
	f.duration("tokens.cache_age", c.Tokens.CacheAge, 0)
	f.count("tokens.cache_users", c.Tokens.CacheUsers, 0, 10_000_000)
	_, err := events.NewInboxes(c.NATS.Subjects(), c.Tokens.InboxPrefixes...)
	f.unless(err == nil, "tokens.inbox_prefixes", "must be subject tokens, the last of which may end in *, that cover no subject of NATS's or Latchkey's own")

	f.duration("reconcile.interval", c.Reconcile.Interval, time.Millisecond)
	f.count("reconcile.batch", c.Reconcile.Batch, 1, 100_000)
	f.duration("reconcile.slack", c.Reconcile.Slack, 0)

	f.duration("retention.expired", c.Retention.Expired, time.Second)
	f.duration("retention.revocations", c.Retention.Revocations, time.Second)
	f.duration("retention.events", c.Retention.Events, time.Second)
	f.duration("retention.dead_letters", c.Retention.DeadLetters, time.Second)
	f.duration("retention.audit", c.Retention.Audit, time.Second)
}

func (fs *faults) margin(key string, m Margin) {
	// NaN must be a fault too: it fails every comparison.
	fs.unless(m.Share >= 0 && m.Share < 1, key+".share", "must be from 0 up to but not including 1")
	fs.duration(key+".min", m.Min, 0)
	fs.duration(key+".max", m.Max, time.Millisecond)
	fs.atLeast(key+".max", m.Max, m.Min, key+".min")
	fs.unless(m.Jitter >= 0 && m.Jitter <= 1, key+".jitter", "must be from 0 to 1")
}

func (fs *faults) backoff(key string, b Backoff) {
	fs.duration(key+".min", b.Min, time.Millisecond)
	fs.duration(key+".max", b.Max, time.Millisecond)
	fs.atLeast(key+".max", b.Max, b.Min, key+".min")
}

func (fs *faults) rate(key string, perSecond float64) {
	fs.unless(perSecond > 0 && perSecond <= 1e6, key, "must be above 0 and at most 1000000")
}
