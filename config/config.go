// Package config is the configuration of the worker: one struct, its defaults,
// where its values come from, what they may be, and how to print them without
// the secrets.
//
// Values come from three places, later ones winning: [Default], a YAML file, the
// environment. One tag names a field in both notations: the field tagged
// client_secret in the section tagged mesh is the key mesh.client_secret of the
// file and the variable LATCHKEY_MESH_CLIENT_SECRET.
//
// The comments on the fields are the text of docs/configuration.md.
//
// All faults are reported at once, each with its key, line and the nearest known
// name, and none repeats a value. No library does that, so the file's syntax tree
// is walked here: strict decoding by goccy/go-yaml stops at the first fault and
// quotes the file; yaml.v3 with KnownFields collects faults, but as texts that quote
// values and name Go types in place of keys; mapstructure (and koanf, which uses it)
// names keys and no values, but knows no lines, forgets unknown keys where the section has another
// fault, takes 010 for 8, and reads a secret of digits only after YAML has made a number of it.
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

// Worker is this process among its siblings.
type Worker struct {
	// Name of this worker, the owner of its leases. Letters, digits, dot, dash
	// and underscore; unique among the workers that run at the same time. When
	// empty: the host's name and eight random hexadecimal digits.
	ID string `yaml:"id"`
	// How long the worker may take to finish its work after SIGTERM. At least
	// mesh.timeout + mongodb.timeout, so that the answer of a refresh under way is stored.
	Grace time.Duration `yaml:"grace"`
	// Largest difference between the workers' clocks that leases tolerate.
	ClockSkew time.Duration `yaml:"clock_skew"`
	// Whether the process's memory is kept from swap: auto (where the system allows it without
	// risk), required (it does not start otherwise) or off.
	LockMemory string `yaml:"lock_memory"`
}

// Log is what the worker writes to standard error.
type Log struct {
	// Least severe level that is written: debug, info, warn or error.
	Level string `yaml:"level"`
	// Form of a line: json or console.
	Format string `yaml:"format"`
}

// Admin is the HTTP listener for metrics, health and the operator's page.
type Admin struct {
	// Address to listen on, host:port. Empty turns the listener off.
	Listen string `yaml:"listen"`
	// What the operator's page asks for, as the password of HTTP Basic (with any user name) or as a bearer
	// token; at least 16 characters. When empty: the page asks for nothing on a loopback address, and is not
	// served on any other.
	Token secret.Text `yaml:"token"`
	// Path of a PEM file with the listener's certificate, together with key_file. When empty: plain HTTP.
	CertFile string `yaml:"cert_file"`
	// Path of a PEM file with the key of the listener's certificate.
	KeyFile string `yaml:"key_file"`
}
