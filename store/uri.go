package store

import (
	"errors"

	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// majority has a write survive a failover, and a restart of all members also
// where the replica set is configured not to journal for a majority.
func majority() *writeconcern.WriteConcern {
	journal := true
	return &writeconcern.WriteConcern{W: writeconcern.WCMajority, Journal: &journal}
}

// clientOptions are what the connection string asks for, with what correctness
// depends on put in its place: the worker decides by what it reads, so it reads
// what a majority has from the primary, and a write is done when a majority has
// it. overridden names the options of the string that asked for something else.
func clientOptions(o Options) (opts *options.ClientOptions, overridden []string, err error) {
	opts = options.Client().ApplyURI(o.URI.Reveal())
	if err := opts.Validate(); err != nil {
		return nil, nil, errors.New("mongodb.uri is not a valid connection string") // the driver's error quotes the string
	}
	note := func(differs bool, option string) {
		if differs {
			overridden = append(overridden, option)
		}
	}
	note(opts.ReadPreference != nil && opts.ReadPreference.Mode() != readpref.PrimaryMode, "readPreference")
	note(opts.ReadConcern != nil && opts.ReadConcern.Level != readconcern.Majority().Level, "readConcernLevel")
	if w := opts.WriteConcern; w != nil {
		note(w.W != nil && w.W != writeconcern.WCMajority, "w")
		note(w.Journal != nil && !*w.Journal, "journal")
	}
	note(opts.Timeout != nil, "timeoutMS")
	note(opts.ServerSelectionTimeout != nil, "serverSelectionTimeoutMS")
	opts.SetAppName(o.AppName).
		SetMonitor(o.Monitor).
		SetTimeout(o.Timeout).
		SetServerSelectionTimeout(o.Timeout).
		SetReadPreference(readpref.Primary()).
		SetReadConcern(readconcern.Majority()).
		SetWriteConcern(majority())
	return opts, overridden, nil
}
