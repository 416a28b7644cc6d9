// Command ferretdb runs FerretDB alone, until its standard input ends, for tests under the
// race detector: see engines.ProgramVariable.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
)

func main() {
	var o engines.FerretDBOptions
	flag.StringVar(&o.Dir, "dir", "", "folder of the SQLite files")
	flag.StringVar(&o.PostgresURL, "postgres", "", "PostgreSQL database to store in instead")
	flag.Parse()
	ctx, cancel := context.WithCancel(context.Background())
	uri, done, err := engines.RunFerretDB(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ferretdb:", err)
		os.Exit(1)
	}
	fmt.Println(uri)
	_, _ = io.Copy(io.Discard, os.Stdin) // whoever started it is done, or died
	cancel()
	<-done
}
