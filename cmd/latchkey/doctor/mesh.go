package doctor

import (
	"context"
	"net/http"
	"time"

	"github.com/latchkey/latchkey/refresher"
)

// mesh asks Mesh to refresh an empty token, which spends nothing.
func (d *doctor) mesh(ctx context.Context) Result {
	client, err := refresher.NewMesh(refresher.MeshOptions{
		URL: d.cfg.Mesh.URL, ClientID: d.cfg.Mesh.ClientID, ClientSecret: d.cfg.Mesh.ClientSecret, Timeout: d.cfg.Mesh.Timeout, Now: d.now,
	})
	if err != nil {
		return failed("correct the section mesh of the configuration", "%v", err)
	}
	began := d.now()
	probe, err := client.Probe(ctx)
	if err != nil {
		return failed("check mesh.url, DNS, the proxy and the firewall", "%v", err)
	}
	d.timed("mesh", began, probe.Date, time.Second)
	switch status := probe.Status; {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return failed("correct mesh.client_id and mesh.client_secret", "HTTP %d: Mesh refuses the credentials", status)
	case status == http.StatusTooManyRequests:
		return warning("try again in a minute", "HTTP %d: Mesh can be reached; whether it takes the credentials is not known", status)
	case status >= 500:
		return warning("try again; if it lasts, ask Mesh", "HTTP %d: Mesh can be reached and fails; whether it takes the credentials is not known", status)
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status >= 300 && status < 400:
		return failed("correct mesh.url", "HTTP %d: what answers there has no call to refresh tokens", status)
	default:
		// Whether Mesh looks at the credentials before the request is not documented.
		return ok("HTTP %d to a refresh without a token: Mesh refused the request and not the credentials, which makes them likely to be right; only a refresh proves it", status)
	}
}
