// Package stack starts what a worker talks to, in one process and over the real protocols:
// NATS with JetStream, MongoDB, KMS and Mesh. A worker reaches it by its normal
// configuration.
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

// Credentials and names of the simulated services. They protect nothing.
const (
	AccessKeyID     = "AKIASANDBOXSANDBOX00"
	SecretAccessKey = "sandbox-secret-access-key"
	Region          = "us-east-1"
	ClientID        = "sandbox-client"
	ClientSecret    = "sandbox-client-secret"
	KeyAlias        = "alias/latchkey"
)

type Options struct {
	Dir                 string                // of all data; a stack on the same folder continues with it
	NATSURL, MongoDBURI string                // outside servers, in place of embedded ones
	NATSMaxStore        int64                 // bound of what the embedded NATS stores, in bytes; 0: none
	NATSInTheClear      bool                  // the embedded NATS does not encrypt its files
	NATSConfigure       func(*server.Options) // changes the options of the embedded NATS at every start and reload
	PostgresURL         string                // where the embedded MongoDB keeps its data, in place of SQLite

	NATSPort, MongoDBPort, KMSPort, MeshPort int // 0: any free one

	CredentialsLifetime time.Duration                  // of credentials from the simulated STS; 0: an hour
	Institutions        map[string]meshsim.Institution // by broker type
	Clock               func() time.Time               // of the simulated Mesh; time.Now unless set
	// KMSFault and MeshFault, if set, report whether a request to the service is carried
	// out and never answered.
	KMSFault, MeshFault func(*http.Request) bool
}

type Stack struct {
	NATS    *engines.NATS     // nil: an outside server
	MongoDB *engines.FerretDB // nil: an outside server
	KMS     *kmssim.KMS
	STS     *kmssim.STS
	Mesh    *meshsim.Server
	MeshURL string

	natsURL, mongoURI, kmsURL, stsURL string
	servers                           []*http.Server
	log, lock                         *os.File // nil: there is none
}

var ErrInUse = errors.New("the folder is in use")

// Hold takes a folder for this process until the file is closed. It fails with ErrInUse
// while another stack runs on the folder.
func Hold(dir string) (*os.File, error) { return lock(filepath.Join(dir, "lock")) }

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
	if s.lock, err = Hold(o.Dir); err != nil {
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
		if s.log, err = os.OpenFile(filepath.Join(o.Dir, "mongodb.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return s, fmt.Errorf("opening the database's log: %w", err)
		}
		s.MongoDB, err = engines.StartFerretDB(engines.FerretDBOptions{
			Dir: filepath.Join(o.Dir, "mongodb"), PostgresURL: o.PostgresURL, Port: o.MongoDBPort,
			// At lower levels FerretDB writes whole documents.
			Logger: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelError})),
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
	if s.kmsURL, err = s.Serve(o.KMSPort, hanging(s.KMS, o.KMSFault)); err != nil {
		return s, err
	}
	s.STS = kmssim.NewSTS(s.KMS, kmssim.STSOptions{Token: secret.New(identityToken), Lifetime: o.CredentialsLifetime})
	if s.stsURL, err = s.Serve(0, s.STS); err != nil {
		return s, err
	}
	s.Mesh, err = meshsim.New(meshsim.Config{
		Seed: secret.New("sandbox"), ClientID: ClientID, ClientSecret: secret.New(ClientSecret),
		Dir: filepath.Join(o.Dir, "mesh"), Institutions: o.Institutions, Clock: o.Clock,
	})
	if err != nil {
		return s, err
	}
	s.MeshURL, err = s.Serve(o.MeshPort, hanging(s.Mesh, o.MeshFault))
	return s, err
}

// hanging carries out the requests that fault accepts, and leaves them without an answer.
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

type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}

// ServeMesh serves the simulated Mesh at one more address, by which the ledger can
// distinguish callers.
func (s *Stack) ServeMesh() (url string, err error) { return s.Serve(0, s.Mesh) }

// Serve serves a handler at a port of this machine until Stop. Port 0 takes a free one.
func (s *Stack) Serve(port int, handler http.Handler) (url string, err error) {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", fmt.Errorf("listening: %w", err)
	}
	httpServer := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	s.servers = append(s.servers, httpServer)
	go func() { _ = httpServer.Serve(listener) }() // ends with Close
	return "http://" + listener.Addr().String(), nil
}

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
	_ = s.log.Close()  // fails where there is none
	_ = s.lock.Close() // which releases the folder
}

// Ready speeds up the embedded database once the worker has made its collections.
func (s *Stack) Ready(ctx context.Context) error {
	if s.MongoDB == nil {
		return nil
	}
	return s.MongoDB.AddIndexes(ctx)
}
