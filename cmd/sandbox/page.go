package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/linkdemo"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/config"
)

// pageInstitutions let access tokens of the page expire soon enough to watch.
func pageInstitutions() map[string]meshsim.Institution {
	short := meshsim.Institution{AccessLifetime: 3 * time.Minute, RefreshLifetime: time.Hour}
	return map[string]meshsim.Institution{"coinbase": short, "binance": short, "oldBank": {AccessLifetime: time.Minute}}
}

// pageDir is where make puts the page's script: beside the program.
func pageDir() string {
	program, err := os.Executable()
	if err != nil {
		return "page"
	}
	return filepath.Join(filepath.Dir(program), "page")
}

// startPage serves the page and prints its address. Without its script, which
// needs npm to build, the sandbox does without.
func startPage(s *stack.Stack, cfg config.Config, o options, stdout io.Writer) (stop func(), err error) {
	page, err := linkdemo.Start(linkdemo.Options{
		NATSURL: cfg.NATS.URL, Subjects: cfg.NATS.Subjects(), Mesh: s.Mesh,
		ScriptDir: o.scriptDir, PagePort: o.ports.page, LinkPort: o.ports.link, Institutions: pageInstitutions(),
	})
	switch {
	case errors.Is(err, linkdemo.ErrNotBuilt):
		fmt.Fprintln(stdout, "  page      not built: make page, which needs npm")
		return func() {}, nil
	case err != nil:
		return nil, err
	}
	fmt.Fprintf(stdout, "  page      %s      connect accounts in a browser, with Mesh's Link SDK and a simulated Link\n", page.URL)
	return page.Stop, nil
}
