// Package tokens answers requests for the current access tokens of a user, over NATS
// request and reply. It keeps sealed grants in memory, refreshes those whose tokens are
// about to expire, and records who received which tokens before the reply leaves.
package tokens
