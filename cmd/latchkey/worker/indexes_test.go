package worker_test

import (
	"testing"

	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
	"github.com/latchkey/latchkey/events"
)

func TestAWorkerWorksWhileIndexesCannotBeCreated(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	if h.stack.MongoDB == nil {
		t.Skip("needs an embedded database, which can be made to fail")
	}
	h.stack.MongoDB.Proxy().FailWrites(13, func(command, _ string) bool { return command == "createIndexes" })
	h.worker()
	h.connect("u", spec("coinbase"))
	h.event(events.TokenStored, "u")
	h.examine().Is(doctor.Failed, "mongodb indexes", "grants(due.at, _id)")
}
