package store

import (
	"errors"

	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// majority makes a write survive a failover, and a restart of all members even if the
// replica set does not journal majority writes by default.
func majority() *writeconcern.WriteConcern {
	journal := true
	return &writeconcern.WriteConcern{W: writeconcern.WCMajority, Journal: &journal}
}

// clientOptions returns the options of the connection string, except for those on which
// correctness depends: the worker decides by what it reads, so it reads from the
// primary what a majority has. overridden names the options that it replaces.
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
