// Package linkdemo is the sandbox's page: an example of a company's page and backend that
// use Mesh's Link SDK and Latchkey. The SDK is the real one; the Link that it opens is
// simulated, from an origin of its own as Mesh's is, with tokens of the simulated Mesh.
//
// The pages are in web/. npm builds the script that contains the SDK, before the sandbox
// runs.
package linkdemo

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

//go:embed web/page/index.html web/page/page.css web/link
var web embed.FS

var samplePage = template.Must(template.ParseFS(web, "web/page/index.html"))

// ErrNotBuilt: the folder for the page's script does not hold it.
var ErrNotBuilt = errors.New("the page's script is not built")

type Options struct {
	NATSURL  string
	Subjects events.Subjects
	Mesh     *meshsim.Server
	// ScriptDir is the folder of page.js as npm has built it.
	ScriptDir          string
	PagePort, LinkPort int // 0: any free one
	// Institutions overrides how brokers behave that users connect on the page.
	Institutions map[string]meshsim.Institution
}

// Demo is a running page with its backend, and the simulated Link.
type Demo struct {
	URL string // of the page

	nc      *nats.Conn
	servers []*http.Server
	end     context.CancelFunc
}

// Start serves the page. It fails with ErrNotBuilt when its script is missing.
// The caller must Stop it.
func Start(o Options) (d *Demo, err error) {
	script, err := os.ReadFile(filepath.Join(o.ScriptDir, "page.js"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no page.js in %q", ErrNotBuilt, o.ScriptDir)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the page's script: %w", err)
	}
	ctx, end := context.WithCancel(context.Background())
	d = &Demo{end: end}
	defer func() {
		if err != nil {
			d.Stop()
		}
	}()
	client, err := dial(o.NATSURL, o.Subjects)
	if err != nil {
		return d, err
	}
	d.nc = client.nc
	page, err := listen(o.PagePort)
	if err != nil {
		return d, err
	}
	linkListener, err := listen(o.LinkPort)
	if err != nil {
		return d, errors.Join(err, page.Close())
	}
	// Two names of this machine: for a browser the page and Link are two sites, as in
	// production, and share no cookie.
	d.URL = fmt.Sprintf("http://localhost:%d", page.Addr().(*net.TCPAddr).Port)
	link := newLink(o.Mesh, o.Institutions, d.URL, "http://"+linkListener.Addr().String())
	o.Mesh.LinkTokens(link.token)
	d.serve(ctx, page, newBackend(client, link, script).handler())
	d.serve(ctx, linkListener, link.handler())
	return d, nil
}

func listen(port int) (net.Listener, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("listening for the page: %w", err)
	}
	return l, nil
}

// serve answers requests until Stop; ctx ends those that wait.
func (d *Demo) serve(ctx context.Context, l net.Listener, handler http.Handler) {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	d.servers = append(d.servers, server)
	go func() { _ = server.Serve(l) }() // ends with Close
}

func (d *Demo) Stop() {
	d.end()
	for _, server := range d.servers {
		_ = server.Close()
	}
	if d.nc != nil {
		d.nc.Close()
	}
}
