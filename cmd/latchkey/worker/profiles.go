package worker

import (
	"context"
	"net/http"
	"net/http/pprof" //nolint:gosec // it registers with the default mux too, which no listener serves
)

// profiles serves profiles of the process: where it spends time and memory, and what its
// goroutines wait for. None contains what is in memory. The command line is left out, and so
// are profiles that stay empty, since nothing is collected for them. A profile that is being
// taken ends when the worker stops. A page of another site that a browser names as such can't
// start one, though the browser would add the token by itself.
func profiles(stopping context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	for _, name := range []string{"allocs", "goroutine", "heap", "threadcreate"} {
		mux.Handle("GET /debug/pprof/"+name, pprof.Handler(name))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if from := r.Header.Get("Sec-Fetch-Site"); from != "" && from != "same-origin" && from != "none" {
			http.Error(w, "profiles are not for pages of other sites", http.StatusForbidden)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(stopping, cancel)()
		mux.ServeHTTP(w, r.WithContext(ctx)) //nolint:contextcheck // it is inherited from the request
	})
}
