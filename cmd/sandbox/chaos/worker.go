package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/http2peer"
)

// startWorker starts the i-th worker. Every other one reaches Mesh over TLS and HTTP/2, the
// others in the clear.
func (r *run) startWorker(exe string, i int, more []string) (err error) {
	w := &process{exe: exe, log: filepath.Join(r.dir, fmt.Sprintf("worker-%d.log", i))}
	// The clocks of the first and the last differ by the tolerated skew.
	if r.Workers > 1 {
		w.offset = clockSkew*time.Duration(i)/time.Duration(r.Workers-1) - clockSkew/2
	}
	if w.admin, err = engines.FreeAddress(); err != nil {
		return err
	}
	// By this address the ledger knows which worker called.
	certificate := filepath.Join(r.dir, fmt.Sprintf("mesh-%d.pem", i))
	if i%2 == 0 {
		w.peer = &http2peer.Peer{Early: func() bool { return r.early.Load() && rand.IntN(10) == 0 }}
		w.mesh, err = r.stack.ServeMeshTLS(w.peer, certificate)
	} else {
		w.mesh, err = r.stack.ServeMesh()
	}
	if err != nil {
		return err
	}
	w.env = append(append(os.Environ(), r.stack.Environ()...), append(more,
		fmt.Sprintf("LATCHKEY_WORKER_ID=worker-%d", i), "LATCHKEY_MESH_URL="+w.mesh, "LATCHKEY_ADMIN_LISTEN="+w.admin, "SSL_CERT_FILE="+certificate)...)
	r.workers = append(r.workers, w)
	r.stops = append(r.stops, w.kill)
	return w.start()
}
