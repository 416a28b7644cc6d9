package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/secret"
)

// TestACodeCompletesARefreshOverNATS: every fault of a request has its answer, and the
// code is nowhere afterwards.
func TestACodeCompletesARefreshOverNATS(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	const code = "c0de-246810-x"
	institution := meshsim.DefaultInstitution("vanguard")
	institution.MFACode = code
	h.publishConnected("u", h.issueSpec(meshsim.ConnectSpec{BrokerType: "vanguard", Institution: &institution}, "a"), time.Now().Add(-due))
	expiring := h.event(events.TokenExpiring, "u")
	require.Equal(t, events.ReasonMFARequired, expiring.Data.Reason)

	c, err := client.New(h.nc, client.Prefix(h.subjects.Prefix))
	require.NoError(t, err)
	good := events.MFARequest{UserID: "u", GrantID: expiring.Data.GrantID, Code: secret.New(code), Version: expiring.Data.Version}
	refused := func(want string, change func(*events.MFARequest)) {
		t.Helper()
		in := good
		change(&in)
		_, err := c.CompleteMFA(h.ctx, in)
		var refusal *client.RefusedError
		require.ErrorAs(t, err, &refusal, want)
		require.Equal(t, want, refusal.Code, refusal.Message)
	}
	refused(events.CodeUnknownUser, func(in *events.MFARequest) { in.GrantID = "another" })
	refused(events.CodeUnknownUser, func(in *events.MFARequest) { in.UserID = "v" })
	refused(events.CodeOtherVersion, func(in *events.MFARequest) { in.Version++ })
	refused(events.CodeRefused, func(in *events.MFARequest) { in.Code = secret.New("wrong") })
	body, err := good.Encode()
	require.NoError(t, err)
	for subject, want := range map[string]string{h.subjects.TokenMFA("v"): events.CodeForbidden, strings.TrimSuffix(h.subjects.TokenMFAAll(), "*") + "%": events.CodeBadRequest} {
		msg, err := h.nc.Request(subject, body, patience)
		require.NoError(t, err)
		require.Equal(t, want, msg.Header.Get("Nats-Service-Error"))
		require.Equal(t, events.MFACodeNumber[want], msg.Header.Get("Nats-Service-Error-Code"))
	}
	msg, err := h.nc.Request(h.subjects.TokenMFA("u"), []byte(`{"userId":"u","grantId":"g","mfaCode":"`+code+`"}`), patience)
	require.NoError(t, err)
	require.Equal(t, events.CodeBadRequest, msg.Header.Get("Nats-Service-Error"))
	require.NotContains(t, string(msg.Data), code)

	reply, err := c.CompleteMFA(h.ctx, good)
	require.NoError(t, err)
	refreshed := h.event(events.TokenRefreshed, "u")
	require.Equal(t, refreshed.Data.Version, reply.Version)
	refused(events.CodeNotPending, func(in *events.MFARequest) { in.Version = 0 })
	require.Len(t, h.get(events.TokenRequest{UserID: "u"}).AccessTokens, 1)
	require.NotContains(t, h.logs.String(), code)
}
