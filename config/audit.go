package config

import "time"

// What becomes of a request for tokens whose audit record can't be written.
const (
	AuditRequired   = "required"
	AuditBestEffort = "best_effort"
	AuditOff        = "off"
)

// Audit configures the log of who received tokens, and of what workers did with them.
type Audit struct {
	// required: no token is handed out before its record is stored; a request whose record can't
	// be stored is answered busy. best_effort: tokens are handed out all the same. off: there is no audit log.
	Mode string `yaml:"mode"`
	// How long a request waits for its record in mode required.
	Timeout time.Duration `yaml:"timeout"`
	// Record what NATS says about the requester (header Nats-Request-Info). Set it where clients are in other
	// NATS accounts than the workers and import the service with share: true.
	RequestInfo bool `yaml:"request_info"`
}

func (c Config) checkAudit(f *faults) {
	f.oneOf("audit.mode", c.Audit.Mode, AuditRequired, AuditBestEffort, AuditOff)
	f.duration("audit.timeout", c.Audit.Timeout, time.Millisecond)
}
