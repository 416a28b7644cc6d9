package config

import "time"

// What happens to a token request whose audit record can't be stored.
const (
	AuditRequired   = "required"
	AuditBestEffort = "best_effort"
	AuditOff        = "off"
)

// Audit configures the log of who received tokens and what workers did with them.
type Audit struct {
	// required: workers store the record before they send a token, and answer busy if they can't.
	// best_effort: they send the token in any case. off: there is no audit log.
	Mode string `yaml:"mode"`
	// How long a request waits for its record to be stored, with mode required.
	Timeout time.Duration `yaml:"timeout"`
	// Record what NATS says about the requester (header Nats-Request-Info). Set it if clients are in other
	// NATS accounts than the workers and import the service with share: true.
	RequestInfo bool `yaml:"request_info"`
}

func (c Config) checkAudit(f *faults) {
	f.oneOf("audit.mode", c.Audit.Mode, AuditRequired, AuditBestEffort, AuditOff)
	f.duration("audit.timeout", c.Audit.Timeout, time.Millisecond)
}
