package doctor

import (
	"context"
	"crypto/tls"
	"strings"
	"time"

	"github.com/latchkey/latchkey/cmd/latchkey/credentials"
)

const doRenew = "renew it before it ends; see docs/operations.md, Certificates and credentials"

// credentials looks at the certificates and credentials in files, and at the
// certificate that NATS shows.
func (d *doctor) credentials(ctx context.Context) Result {
	var good, near, bad []string
	look := func(name string, validity credentials.Validity, err error) {
		now, day := d.now(), validity.Ends.UTC().Format(time.DateOnly)
		switch {
		case err != nil:
			bad = append(bad, name+" can't be read: "+err.Error())
		case now.Before(validity.Begins.Add(-d.cfg.Worker.ClockSkew)):
			bad = append(bad, name+" begins only at "+validity.Begins.UTC().Format(time.RFC3339))
		case validity.Ends.IsZero():
			good = append(good, name+" without end")
		case !now.Before(validity.Ends):
			bad = append(bad, name+" ended on "+day)
		case now.After(validity.RenewBy()):
			near = append(near, name+" ends on "+validity.Ends.UTC().Format(time.RFC3339))
		default:
			good = append(good, name+" until "+day)
		}
	}
	unread := map[string]bool{}
	for _, f := range credentials.Of(d.cfg, d.environ) {
		validity, err := f.Validity()
		unread[f.Name] = err != nil
		look(f.Name, validity, err)
	}
	for _, p := range []struct{ name, cert, key string }{
		{"nats.cert_file", d.cfg.NATS.CertFile, d.cfg.NATS.KeyFile},
		{"admin.cert_file", d.cfg.Admin.CertFile, d.cfg.Admin.KeyFile},
	} {
		if p.cert == "" || unread[p.name] {
			continue
		}
		if _, err := tls.LoadX509KeyPair(p.cert, p.key); err != nil {
			bad = append(bad, p.name+" and its key_file are no pair: "+err.Error())
		}
	}
	if link, err := d.nats.get(ctx); err == nil { // else the check nats reports the error
		if state, err := link.nc.TLSConnectionState(); err == nil && len(state.PeerCertificates) > 0 {
			shown := state.PeerCertificates[0]
			look("the certificate of the NATS server", credentials.Validity{Begins: shown.NotBefore, Ends: shown.NotAfter}, nil)
		}
	}
	switch {
	case len(bad) > 0:
		return failed("put a valid one in its place; see docs/operations.md, Certificates and credentials", "%s", strings.Join(append(bad, near...), "; "))
	case len(near) > 0:
		return warning(doRenew, "%s", strings.Join(near, "; "))
	case len(good) == 0:
		return ok("none that ends is configured")
	}
	return ok("%s", strings.Join(good, ", "))
}
