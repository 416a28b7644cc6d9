package store

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Server is what the database server says of itself.
type Server struct {
	WireVersion int
	// ReplicaSet is its name; empty for a server that stands alone or a router.
	ReplicaSet string
	// Members is how many members of the replica set hold data and can be read.
	Members int
	// Router: it is the router (mongos) of a sharded cluster.
	Router bool
	// LocalTime is the server's clock.
	LocalTime time.Time
	// TLS: the connection is encrypted.
	TLS bool
	// Verified: and the server's certificate is checked.
	Verified bool
	// Local: all servers are named by addresses of this machine alone.
	Local bool
}

// Server asks the server what it is.
func (s *Store) Server(ctx context.Context) (Server, error) {
	var hello struct {
		MaxWireVersion int       `bson:"maxWireVersion"`
		SetName        string    `bson:"setName"`
		Hosts          []string  `bson:"hosts"`
		Passives       []string  `bson:"passives"`
		Msg            string    `bson:"msg"`
		LocalTime      time.Time `bson:"localTime"`
	}
	if err := s.database().RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return Server{}, fmt.Errorf("asking MongoDB what it is: %w", err)
	}
	return Server{
		WireVersion: hello.MaxWireVersion,
		ReplicaSet:  hello.SetName,
		Members:     len(hello.Hosts) + len(hello.Passives),
		Router:      hello.Msg == "isdbgrid",
		LocalTime:   hello.LocalTime,
		TLS:         s.tls,
		Verified:    s.verified,
		Local:       !slices.ContainsFunc(s.hosts, elsewhere),
	}, nil
}

// Version asks the server for its version.
func (s *Store) Version(ctx context.Context) (string, error) {
	var info struct {
		Version string `bson:"version"`
	}
	if err := s.database().RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&info); err != nil {
		return "", fmt.Errorf("asking MongoDB for its version: %w", err)
	}
	return info.Version, nil
}

// TryWrite makes a write that changes nothing, so that a missing permission or
// majority shows.
func (s *Store) TryWrite(ctx context.Context) error {
	if _, err := s.meta.DeleteOne(ctx, bson.D{{Key: "_id", Value: "never-stored"}}); err != nil {
		return fmt.Errorf("writing to MongoDB: %w", err)
	}
	return nil
}

// elsewhere reports whether an address may be another machine's.
func elsewhere(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	return host != "localhost" && (err != nil || !ip.IsLoopback())
}
