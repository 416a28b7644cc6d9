package worker

import (
	"net/http"
	"net/http/pprof" //nolint:gosec // it registers with the default mux too, which no listener serves
)

// profiles serves profiles of the process: where it spends time and memory, and what its
// goroutines wait for. None contains what is in memory. The command line is left out.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	for _, name := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
		mux.Handle("GET /debug/pprof/"+name, pprof.Handler(name))
	}
	return mux
}
