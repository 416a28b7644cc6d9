// Package events defines what Latchkey exchanges over NATS: subjects, message bodies and
// their codecs. It imports only packages below it, so that publishers and subscribers
// can use it alone.
package events
