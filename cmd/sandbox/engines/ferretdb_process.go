package engines

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"

	"github.com/FerretDB/FerretDB/ferretdb"
)

// newFerretDB guards ferretdb.New, which writes a variable of its package.
var newFerretDB sync.Mutex

// RunFerretDB runs a server without a proxy in this process until ctx ends; done is closed when it has ended.
func RunFerretDB(ctx context.Context, opts FerretDBOptions) (uri string, done <-chan struct{}, err error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	config, err := opts.config()
	if err != nil {
		return "", nil, err
	}
	newFerretDB.Lock()
	db, err := ferretdb.New(config)
	newFerretDB.Unlock()
	if err != nil {
		return "", nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = db.Run(ctx) // returns nil always
	}()
	return db.MongoDBURI(), ended, nil
}

func runProgram(ctx context.Context, program string, opts FerretDBOptions) (uri string, done <-chan struct{}, err error) {
	cmd := exec.Command(program, "-dir", opts.Dir, "-postgres", opts.PostgresURL)
	var said strings.Builder
	cmd.Stderr = &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	uri, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = stdin.Close()
		err := cmd.Wait() // before which not all that it said is there
		return "", nil, errors.Join(fmt.Errorf("%s ended: %s", program, said.String()), err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		_ = stdin.Close()
		_ = cmd.Wait()
	}()
	return strings.TrimSpace(uri), ended, nil
}
