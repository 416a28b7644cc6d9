package tracing

import "go.opentelemetry.io/otel/attribute"

// Messaging describes the message that a span is about, in OpenTelemetry's
// terms. The subject must not be one that names a user.
func Messaging(operation, subject string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.operation.name", operation),
		attribute.String("messaging.destination.name", subject),
	}
}

// Grant names a grant and the version of its token set.
func Grant(id, broker string, version int64) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("latchkey.grant", id),
		attribute.String("latchkey.broker", broker),
		attribute.Int64("latchkey.version", version),
	}
}

// Outcome tells what became of the work.
func Outcome(outcome string) attribute.KeyValue { return attribute.String("latchkey.outcome", outcome) }

// Attempt counts the deliveries of a message, from 1.
func Attempt(n int) attribute.KeyValue { return attribute.Int("latchkey.attempt", n) }
