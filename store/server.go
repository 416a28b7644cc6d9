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

// Server describes the database server.
type Server struct {
	WireVersion int
	// ReplicaSet is its name; empty for a standalone server or a router.
	ReplicaSet string
	// Members counts the members of the replica set that can be read.
	Members int
	// Router: the server is the router (mongos) of a sharded cluster.
	Router bool
	// LocalTime is the server's clock.
	LocalTime time.Time
	// TLS: the connection is encrypted.
	TLS bool
	// Verified: the server's certificate is checked.
	Verified bool
	// Local: all addresses of servers are this machine's.
	Local bool
}

// Server asks the server for its description.
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
		Local:       !slices.ContainsFunc(s.hosts, isRemote),
	}, nil
}

// Version asks the server for its version.
func (s *Store) Version(ctx context.Context) (string, error) {
	var info struct {
		Version string `bson:"version"`
	}
	err := s.database().RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&info)
	return info.Version, wrap(err, "asking MongoDB for its version")
}

// TryWrite makes a write that changes nothing. It fails without a permission or a
// majority.
func (s *Store) TryWrite(ctx context.Context) error {
	_, err := s.meta.DeleteOne(ctx, byID("never-stored"))
	return wrap(err, "writing to MongoDB")
}

// isRemote reports whether an address may be another machine's.
func isRemote(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	return host != "localhost" && (err != nil || !ip.IsLoopback())
}
