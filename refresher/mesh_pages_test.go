package refresher_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
)

// TestErrorPagesDoNotFillTheDeadLetters: only what may hold tokens is kept.
func TestErrorPagesDoNotFillTheDeadLetters(t *testing.T) {
	for _, given := range []meshsimtest.Response{
		{Status: 502, Body: "<html><head><title>502 Bad Gateway</title></head><body>The access token or refresh token service is away</body></html>"},
		{Status: 200, Body: "<html>Log in to the network</html>"},
		{Status: 200, Body: `{"status":"ok","content":{"sta`},
		{Status: 502, Body: meshsimtest.Encodings["gzip"]("<html>502</html>")},
		{Status: 400, Body: `{"title":"One or more validation errors occurred.","errors":{"type":["The type field is required."]}}`},
		{Status: 400, Body: `{"status":"badRequest","message":"Unauthorized token","request":{"type":"coinbase","refreshToken":"canary-refresh","accessToken":"canary-access"}}`},
		{Status: 500, Body: ``},
		{Status: 502, Body: "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx/1.18.0 (Ubuntu)</center>\r\n</body>\r\n</html>"},
		{Status: 503, Body: `<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
			<html xmlns="http://www.w3.org/1999/xhtml"><head><meta http-equiv="Content-Type" content="text/html; charset=windows-1252"/>
			<meta name="viewport" content="width=device-width, initial-scale=1.0"><title>503 - Service is unavailable.</title></head>
			<body><h2>503 - The refresh_token service at https://api.mesh.example/v1/tokens/refresh is away.</h2> Ray 8a1b2c3d4e5f6789, 2026-11-28T15:55:35Z</body></html>`},
		{Status: 500, Body: `{"status":"serverFailure","message":"Something went wrong, id 4f1c9a52-57d1-4b0c-9a3e-0d2f6f6c1a11","displayMessage":"[none] {0}","errorHash":"5f3a9c0db1e24c7788aa90bbccdd1122","traceId":"00-84c1fd4063c38d9f3900d06e56542d48-85d1d4-00"}`},
		{Status: 400, Body: `{"status":"badRequest","errorType":"badRequest","message":"Unauthorized token, accessToken: expired","requestToken":"none","expiresAt":"2026-11-28T15:55:35.1234567Z"}`},
		{Status: 400, Body: "grant_type=refresh_token&refresh_token=canary-refresh%20&access_token=%22canary-access%22"},
	} {
		f := refused(t, meshAnswering(t, given.Status, given.Body))
		require.Empty(t, f.Answer.Rest, given.Body)
	}
	for _, given := range []meshsimtest.Response{
		{Status: 503, Body: "\x00\x01\xff\xfe\x80\x81\x82\x83 binary"},
		{Status: 200, Body: "eyJlbmMiOiJBMjU2R0NNIiwiYWxnIjoiUlNBLU9BRVAifQ.QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"},
		{Status: 200, Body: body("ok", `"QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"`)},
		{Status: 200, Body: body("ok", `{"status":"succeeded","credentials":{"refresh":"QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"}}`)},
		{Status: 502, Body: "<p>Reference QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8</p>"},
		{Status: 200, Body: "QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"},
	} {
		f := refused(t, meshAnswering(t, given.Status, given.Body))
		require.False(t, f.Answer.Rest.Empty(), given.Body)
		require.True(t, f.Answer.Doubtful, given.Body)
	}
}
