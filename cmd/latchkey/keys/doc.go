// Package keys manages the stored data keys: it counts what they seal, wraps them under
// another KMS key, replaces them, and deletes those that nothing needs.
package keys
