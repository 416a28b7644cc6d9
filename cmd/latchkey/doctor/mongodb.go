package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/latchkey/latchkey/store"
)

// withMongoDB returns a check that needs the connection to MongoDB.
func (d *doctor) withMongoDB(run func(context.Context, *store.Store) Result) func(context.Context) Result {
	return needs(&d.mongo, noMongoDB, run)
}

func noMongoDB() Result {
	return failed("look at the check mongodb", "not checked: no connection to MongoDB")
}

// minWireVersion is that of MongoDB 6.0.
const minWireVersion = 17

func (d *doctor) mongoServer(ctx context.Context) Result {
	db, err := d.mongo.get(ctx)
	if err != nil {
		return failed("check mongodb.uri, that the servers run, and the user's credentials", "%v", err)
	}
	began := d.now()
	server, err := db.Server(ctx)
	if err != nil {
		return failed("see how the server is", "%v", err)
	}
	d.timed("mongodb", began, server.LocalTime, time.Millisecond)
	took := d.now().Sub(began)
	version, err := db.Version(ctx)
	if err != nil {
		return failed("see how the server is", "%v", err)
	}
	switch {
	case server.WireVersion < minWireVersion:
		return failed("upgrade MongoDB to 6.0 or newer", "version %s (wire version %d) is too old", version, server.WireVersion)
	case len(db.Overridden()) > 0:
		return warning("take these options out of mongodb.uri", "version %s; of no effect in mongodb.uri: %s", version, strings.Join(db.Overridden(), ", "))
	case server.ReplicaSet == "" && !server.Router:
		return warning("run a replica set of three: a majority of one server outlives no disk", "version %s, no replica set", version)
	case server.Router:
		return ok("version %s behind a router, %v away", version, took.Round(time.Microsecond))
	}
	return ok("version %s, replica set %s, %v away", version, server.ReplicaSet, took.Round(time.Microsecond))
}

func (d *doctor) mongoTLS(ctx context.Context, db *store.Store) Result {
	server, err := db.Server(ctx)
	switch {
	case err != nil:
		return failed("look at the check mongodb", "%v", err)
	case server.TLS && !server.Verified && !server.Local:
		return warning("take tlsInsecure out of mongodb.uri and name the authority in tlsCAFile", "the connection is encrypted, but whoever answers is taken for the server")
	case server.TLS:
		return ok("the connection is encrypted")
	case server.Local:
		return ok("not encrypted, and does not leave this machine")
	}
	return warning("turn TLS on in MongoDB and put tls=true into mongodb.uri", "the connection is not encrypted: who has which accounts passes in the clear (tokens are sealed)")
}

func (d *doctor) mongoWrites(ctx context.Context, db *store.Store) Result {
	began := d.now()
	if err := db.TryWrite(ctx); err != nil {
		return failed("give the user readWrite on the database, and see whether a majority of the replica set is up", "%v", err)
	}
	return ok("a majority acknowledged a write of nothing within %v", d.now().Sub(began).Round(time.Microsecond))
}

func (d *doctor) indexes(ctx context.Context, db *store.Store) Result {
	missing, err := db.MissingIndexes(ctx)
	if err != nil {
		return failed("give the user readWrite on the database", "%v", err)
	}
	if len(missing) == 0 {
		return ok("all are there")
	}
	known, err := db.StreamIdentity(ctx)
	if err == nil && known == "" {
		return warning(doFirst, "no worker has run here yet; missing: %s", strings.Join(missing, ", "))
	}
	return failed(doRestart, "missing: %s; work that needs them reads whole collections", strings.Join(missing, ", "))
}

// overdueBatch is how many overdue grants are counted at most.
const overdueBatch = 100

func (d *doctor) overdue(ctx context.Context, db *store.Store) Result {
	// The reconciler looks once in its interval, and acts on what is overdue by its slack.
	// Nobody takes care of grants that are later than that.
	late := d.cfg.Reconcile.Slack + 2*d.cfg.Reconcile.Interval + d.cfg.Refresh.Lease
	page, err := db.Overdue(ctx, d.now().Add(-late), store.Place{}, overdueBatch)
	grants := page.Grants
	switch {
	case err != nil:
		return failed("look at the check mongodb", "%v", err)
	case len(grants) == 0:
		return ok("none (by more than %v)", late)
	}
	count := fmt.Sprint(len(grants))
	if len(grants) == overdueBatch {
		count += " or more"
	}
	return warning("see that workers run and what their logs say; with many grants, whether limits.* or the number of workers hold refreshes up",
		"%s grants are overdue by more than %v, the first since %s", count, late, grants[0].Due.At.UTC().Format(time.RFC3339))
}
