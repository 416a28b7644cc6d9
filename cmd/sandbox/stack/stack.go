// Package stack starts what a worker talks to, all in one process and over the
// real protocols: NATS with JetStream, MongoDB, KMS and Mesh. The sandbox and
// the tests run the worker against it by nothing but its normal configuration.
package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

// What the simulated services are asked with. They guard nothing.
const (
	AccessKeyID     = "AKIASANDBOXSANDBOX00"
	SecretAccessKey = "sandbox-secret-access-key"
	Region          = "us-east-1"
	ClientID        = "sandbox-client"
	ClientSecret    = "sandbox-client-secret"
	KeyAlias        = "alias/latchkey"
)

// Options for Start.
type Options struct {
	// Dir holds all data; a stack started on the same folder goes on where the
	// last one ended.
	Dir string
	// NATSURL and MongoDBURI name outside servers to use in place of embedded
	// ones.
	NATSURL    string
	MongoDBURI string
	// NATSMaxStore bounds the bytes that the embedded NATS stores; 0: no bound.
	NATSMaxStore int64
	// NATSInTheClear has the embedded NATS write its files without encryption.
	NATSInTheClear bool
	// NATSConfigure, if set, changes the options of the embedded NATS at every start and
	// reload.
	NATSConfigure func(*server.Options)
	// PostgresURL has the embedded MongoDB keep its data in PostgreSQL.
	PostgresURL string
	// Ports to listen on, 0 for any free one.
	NATSPort, MongoDBPort, KMSPort, MeshPort int
	// CredentialsLifetime is how long credentials from the simulated STS live; 0: an
	// hour.
	CredentialsLifetime time.Duration
	// Institutions says how simulated brokers behave.
	Institutions map[string]meshsim.Institution
	// Clock of the simulated services (time.Now).
	Clock func() time.Time
	// KMSFault and MeshFault, if set, are asked about every request to the simulated
	// service. Where one says true the request is never answered.
	KMSFault, MeshFault func(*http.Request) bool
}

// Stack is a running set of engines.
type Stack struct {
	NATS    *engines.NATS     // nil: an outside server
	MongoDB *engines.FerretDB // nil: an outside server
	KMS     *kmssim.KMS
	STS     *kmssim.STS
	Mesh    *meshsim.Server
	MeshURL string

	natsURL, mongoURI, kmsURL, stsURL string
	servers                           []*http.Server
	logs                              []*os.File
	lock                              *os.File // nil: there is none
}

// ErrInUse: the folder is another running stack's, which two at once would break.
var ErrInUse = errors.New("the folder is in use")

// Start starts the engines. The caller must Stop them.
func Start(o Options) (s *Stack, err error) {
	s = &Stack{natsURL: o.NATSURL, mongoURI: o.MongoDBURI}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	if err = os.MkdirAll(o.Dir, 0o700); err != nil {
		return s, fmt.Errorf("making the folder for all data: %w", err)
	}
	if s.lock, err = lock(filepath.Join(o.Dir, "lock")); err != nil {
		return s, err
	}
	if s.natsURL == "" {
		key := "sandbox encryption key"
		if o.NATSInTheClear {
			key = ""
		}
		s.NATS, err = engines.StartNATS(engines.NATSOptions{
			Dir: filepath.Join(o.Dir, "nats"), Port: o.NATSPort, Key: key,
			LogFile: filepath.Join(o.Dir, "nats.log"), MaxStore: o.NATSMaxStore,
			Configure: o.NATSConfigure,
		})
		if err != nil {
			return s, err
		}
		s.natsURL = s.NATS.URL()
	}
	if s.mongoURI == "" {
		dir := filepath.Join(o.Dir, "mongodb")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return s, fmt.Errorf("making the database's folder: %w", err)
		}
		log, err := os.OpenFile(filepath.Join(o.Dir, "mongodb.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return s, fmt.Errorf("opening the database's log: %w", err)
		}
		s.logs = append(s.logs, log)
		s.MongoDB, err = engines.StartFerretDB(engines.FerretDBOptions{
			Dir: dir, PostgresURL: o.PostgresURL, Port: o.MongoDBPort,
			// At lower levels FerretDB writes whole documents.
			Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError})),
		})
		if err != nil {
			return s, err
		}
		s.mongoURI = s.MongoDB.URI()
	}
	s.KMS, err = kmssim.Open(kmssim.Options{
		Dir: filepath.Join(o.Dir, "kms"), Region: Region, AccessKeyID: AccessKeyID, SecretAccessKey: secret.New(SecretAccessKey),
	})
	if err != nil {
		return s, err
	}
	if _, err = s.KMS.CreateKey(KeyAlias); err != nil {
		return s, err
	}
	if s.kmsURL, err = s.serve(o.KMSPort, hanging(s.KMS, o.KMSFault)); err != nil {
		return s, err
	}
	s.STS = kmssim.NewSTS(s.KMS, kmssim.STSOptions{Token: secret.New(identityToken), Lifetime: o.CredentialsLifetime})
	if s.stsURL, err = s.serve(0, s.STS); err != nil {
		return s, err
	}
	s.Mesh, err = meshsim.New(meshsim.Config{
		Seed: secret.New("sandbox"), ClientID: ClientID, ClientSecret: secret.New(ClientSecret),
		Dir: filepath.Join(o.Dir, "mesh"), Institutions: o.Institutions, Clock: o.Clock,
	})
	if err != nil {
		return s, err
	}
	s.MeshURL, err = s.serve(o.MeshPort, hanging(s.Mesh, o.MeshFault))
	return s, err
}

// hanging leaves requests without an answer that fault says yes to, after they
// were carried out.
func hanging(handler http.Handler, fault func(*http.Request) bool) http.Handler {
	if fault == nil {
		return handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fault(r) {
			handler.ServeHTTP(w, r)
			return
		}
		handler.ServeHTTP(nowhere{}, r)
		<-r.Context().Done()
	})
}

// nowhere takes an answer that nobody gets.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}

// ServeMesh serves the simulated Mesh at one more address, so that the ledger can
// tell callers apart.
func (s *Stack) ServeMesh() (url string, err error) { return s.serve(0, s.Mesh) }

func (s *Stack) serve(port int, handler http.Handler) (url string, err error) {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", fmt.Errorf("listening: %w", err)
	}
	httpServer := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	s.servers = append(s.servers, httpServer)
	go func() { _ = httpServer.Serve(listener) }() // ends with Close
	return "http://" + listener.Addr().String(), nil
}

// Stop ends everything; the data stays.
func (s *Stack) Stop() {
	for _, httpServer := range s.servers {
		_ = httpServer.Close()
	}
	if s.Mesh != nil {
		_ = s.Mesh.Close()
	}
	if s.MongoDB != nil {
		s.MongoDB.Stop()
	}
	if s.NATS != nil {
		s.NATS.Stop()
	}
	for _, log := range s.logs {
		_ = log.Close()
	}
	if s.lock != nil {
		_ = s.lock.Close() // which gives the folder back
	}
}

// Ready speeds up the embedded database once the worker has made its
// collections.
func (s *Stack) Ready(ctx context.Context) error {
	if s.MongoDB == nil {
		return nil
	}
	return s.MongoDB.AddIndexes(ctx)
}
