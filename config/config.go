// Package config holds the worker's configuration: its fields and defaults, how to
// load and check them, and how to print them without secrets.
//
// Values come from [Default], a YAML file and the environment; the last one wins. The
// field tagged client_secret in the section tagged mesh is the key mesh.client_secret
// of the file and the variable LATCHKEY_MESH_CLIENT_SECRET.
//
// The comments on the fields are the text of docs/configuration.md.
package config

//go:generate go test . -run TestReference -update

import (
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

// Config is the whole configuration. [Default] and [Load] make one.
type Config struct {
	Worker    Worker    `yaml:"worker"`
	Log       Log       `yaml:"log"`
	Admin     Admin     `yaml:"admin"`
	NATS      NATS      `yaml:"nats"`
	MongoDB   MongoDB   `yaml:"mongodb"`
	KMS       KMS       `yaml:"kms"`
	DataKeys  DataKeys  `yaml:"data_keys"`
	Mesh      Mesh      `yaml:"mesh"`
	Refresh   Refresh   `yaml:"refresh"`
	Limits    Limits    `yaml:"limits"`
	Connect   Connect   `yaml:"connect"`
	Messages  Messages  `yaml:"messages"`
	Tokens    Tokens    `yaml:"tokens"`
	Reconcile Reconcile `yaml:"reconcile"`
	Retention Retention `yaml:"retention"`
	Audit     Audit     `yaml:"audit"`
	Tracing   Tracing   `yaml:"tracing"`
}

// Worker is this process, one of several that may run.
type Worker struct {
	// Name of this worker, which its leases carry; no other running worker may have it. Letters, digits, dots,
	// dashes and underscores. When empty: the host name and eight random hexadecimal digits.
	ID string `yaml:"id"`
	// How long the worker may take to finish its work after SIGTERM. At least
	// mesh.timeout + mongodb.timeout, so that it stores the answer of a refresh in progress.
	Grace time.Duration `yaml:"grace"`
	// Largest difference between the workers' clocks with which leases are still safe.
	ClockSkew time.Duration `yaml:"clock_skew"`
	// Whether to lock the process's memory, so that it is never swapped out: auto (where the system allows it
	// without risk), required (the worker does not start without it) or off.
	LockMemory string `yaml:"lock_memory"`
}

// Log is what the worker writes to standard error.
type Log struct {
	// Lowest level that is written: debug, info, warn or error.
	Level string `yaml:"level"`
	// Format of a line: json or console.
	Format string `yaml:"format"`
}

// Admin is the HTTP listener for metrics, health and the operator's page.
type Admin struct {
	// Address to listen on, host:port. Empty turns the listener off.
	Listen string `yaml:"listen"`
	// Secret for the operator's page, at least 16 characters: the password of HTTP Basic authentication (with any
	// user name) or a bearer token. When empty: the page is open on a loopback address and not served on any other.
	Token secret.Text `yaml:"token"`
	// Path of a PEM file with the listener's certificate; needs key_file. When empty: plain HTTP.
	CertFile string `yaml:"cert_file"`
	// Path of a PEM file with the key of that certificate.
	KeyFile string `yaml:"key_file"`
	// Serve profiles of the worker at /debug/pprof/, behind admin.token, which must be set.
	Pprof bool `yaml:"pprof"`
}
