package refresher_test

import (
	"strings"
	"testing"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
)

// TestTokensAreReadInAnyEncoding, also behind and before junk.
func TestTokensAreReadInAnyEncoding(t *testing.T) {
	answer := body("ok", `{"status":"succeeded","brokerAccountTokens":[{"account":{"accountId":"one","accountName":"Grüße 𝄞"},"accessToken":"new-access","refreshToken":"new-refresh"}],"expiresInSeconds":60}`)
	for name, encode := range meshsimtest.Encodings {
		a, err := meshAnswering(t, 200, encode(answer), "Content-Type", "application/json").Refresh(t.Context(), request)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(a.Accounts) != 1 || a.Accounts[0].ID != "one" || a.Accounts[0].AccessToken.Reveal() != "new-access" || a.NewRefreshToken().Reveal() != "new-refresh" {
			t.Errorf("%s: other tokens than were sent", name)
		}
		if !strings.HasPrefix(a.Accounts[0].Name, "Grüße") {
			t.Errorf("%s: another name", name)
		}
	}
}
