// Package audit is the log of what was done with tokens: who got them, and when they were
// sealed, opened and erased. It contains no token.
//
// Each run of a worker writes a chain of its own: numbered messages, each with the hash
// of the one before, so that removed or changed messages show.
package audit
