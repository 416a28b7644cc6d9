package tracing

import "go.opentelemetry.io/otel/attribute"

// Messaging describes a message in OpenTelemetry's terms. The subject must not name a
// user.
func Messaging(operation, subject string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.operation.name", operation),
		attribute.String("messaging.destination.name", subject),
	}
}

// Grant describes a grant and the version of its token set.
func Grant(id, broker string, version int64) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("latchkey.grant", id),
		attribute.String("latchkey.broker", broker),
		attribute.Int64("latchkey.version", version),
	}
}

// Outcome is the outcome of the work.
func Outcome(outcome string) attribute.KeyValue { return attribute.String("latchkey.outcome", outcome) }

// Attempt is the number of a message's delivery, from 1.
func Attempt(n int) attribute.KeyValue { return attribute.Int("latchkey.attempt", n) }
