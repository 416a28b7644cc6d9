package worker_test

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
	"github.com/latchkey/latchkey/cmd/latchkey/worker/workertest"
)

// examine has the doctor look at the installation.
func (h *harness) examine(more ...string) workertest.Findings {
	h.t.Helper()
	cfg, err := h.stack.Config(h.settings(more...)...)
	require.NoError(h.t, err)
	return workertest.Examine(h.ctx, h.t, cfg, doctor.Options{Timeout: patience, Now: time.Now})
}

// doctorLooks has the doctor look with a worker's permissions, and with less.
func (c *callers) doctorLooks() {
	found := c.examine(c.settingsOf("worker")...)
	found.AllBut()
	found.Is(doctor.OK, "nats tls", "encrypted")
	for _, name := range []string{"nats.cert_file", "nats.ca_file", "the certificate of the NATS server"} {
		found.Is(doctor.OK, "credentials", name+" until ")
	}
	found = c.examine(c.settingsOf("reader")...)
	found.Is(doctor.Failed, "nats permissions", "publish latchkey.deadletter.")
	for check, subject := range map[string]string{"nats jetstream": "$JS.API.INFO", "nats streams": "$JS.API.STREAM.INFO.LATCHKEY_REFRESH", "nats inboxes": "$JS.API.STREAM.LIST"} {
		found.Is(doctor.Failed, check, `to publish to "`+subject+`" (in deploy/nats may: `)
		found.Is(doctor.Failed, check, "worker.conf")
	}
}
