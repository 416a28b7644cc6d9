// Package engines runs the message broker and the database of the sandbox and of the tests inside the calling process.
//
// They are real servers that speak their real protocols on loopback TCP: NATS with JetStream, and FerretDB, which
// speaks MongoDB's wire protocol on SQLite or PostgreSQL. Each can be stopped, restarted on the same address with
// the same data, and made to fail in the ways that a worker must survive. None is meant for production.
package engines
