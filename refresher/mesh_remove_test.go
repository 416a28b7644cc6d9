package refresher_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/refresher"
)

// TestAnswersToRemovalsAreReadAsThoseToRefreshes: in any spelling and encoding.
func TestAnswersToRemovalsAreReadAsThoseToRefreshes(t *testing.T) {
	t.Parallel()
	packed := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		return b.String()
	}
	wide := func(text string) string {
		b := []byte{0xff, 0xfe}
		for _, u := range utf16.Encode([]rune(text)) {
			b = append(b, byte(u), byte(u>>8))
		}
		return string(b)
	}
	const removed, refused, again = "removed", "refused", "again"
	for _, c := range []struct {
		http int
		body string
		want string
	}{
		{200, `{"status":"ok"}`, removed},
		{200, `{"status":"OK"}`, removed},
		{200, `{"Status":"Ok","message":"","errorHash":"h","errorType":""}`, removed},
		{200, "\ufeff" + `{"status":"ok"}`, removed},
		{200, packed(`{"status":"ok"}`), removed},
		{200, wide(`{"status":"ok"}`), removed},
		{200, `{"status":"ok"} trailing <junk>`, removed},
		{200, `{"status":"ok","content":{}}`, removed},
		{200, `{}`, removed},
		{200, `{"status":null,"message":"","displayMessage":null,"content":null}`, removed},
		{200, " \r\n", removed},
		{202, ``, removed},
		{200, `{"status":"NotFound"}`, removed},
		{400, `{"status":"not_found"}`, removed},
		{400, wide(`{"status":"Not Found"}`), removed},
		{400, `{"status":"badRequest","errorType":"notFound"}`, removed},
		{404, `<html>`, removed},
		{410, ``, removed},

		{200, `{"errorType":"serverFailure"}`, again},
		{200, `{"error":"away"}`, again},
		{200, `{"status":"ok","content":{"status":"failed"}}`, again},
		{200, `{"status":"ok"}{"status":"serverFailure"}`, again},
		{200, `{"status":"ServerFailure"}`, again},
		{200, `{"status":"what"}`, again},
		{200, `null`, again},
		{200, `[]`, again},
		{200, `<html>ok</html>`, again},
		{400, `<html>`, again},
		{400, `{"status":"ok"}`, again},
		{403, `<html>`, again},
		{403, `{"status":"badRequest"}`, again},
		{500, `{"status":"notFound"}`, again},
		{503, ``, again},

		{400, `{"status":"badRequest"}`, refused},
		{400, "\ufeff" + `{"status":"Bad_Request","errorType":"invalidField"}`, refused},
		{200, packed(`{"status":"BadRequest"}`), refused},
		{401, ``, refused},
		{451, `<html>`, refused},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/v1/status" {
				return
			}
			w.WriteHeader(c.http)
			_, _ = w.Write([]byte(c.body))
		}))
		mesh := must(refresher.NewMesh(refresher.MeshOptions{URL: server.URL, Timeout: patience, Now: time.Now}))
		err := mesh.Remove(t.Context(), text("token"), "coinbase")
		server.Close()
		got := removed
		if failed := (*refresher.RemoveError)(nil); errors.As(err, &failed) {
			if got = again; failed.Refused {
				got = refused
			}
		}
		require.Equal(t, c.want, got, "HTTP %d %q", c.http, c.body)
	}
}
