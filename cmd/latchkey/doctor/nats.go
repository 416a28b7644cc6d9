package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/store/streams"
)

// natsLink is a connection to NATS.
type natsLink struct {
	nc *nats.Conn
	js jetstream.JetStream
}

func (d *doctor) connectNATS(context.Context) (*natsLink, error) { return d.link() }

func (d *doctor) link(more ...nats.Option) (*natsLink, error) {
	nc, err := worker.Connect(d.cfg.NATS, "doctor", zap.NewNop(), more...)
	if err != nil {
		return nil, err
	}
	js, err := worker.JetStream(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &natsLink{nc, js}, nil
}

// failed reports an error of an operation with NATS, with what is behind it.
func (l *natsLink) failed(ctx context.Context, do, what string, err error) Result {
	err = worker.Explain(ctx, l.nc, err)
	var refused *worker.PermissionError
	if errors.As(err, &refused) {
		do = "permit the worker's user what deploy/nats/roles/worker.conf lists"
	}
	return failed(do, "%s: %v", what, err)
}

// withNATS returns a check that needs the connection to NATS. It gets one of its own, since
// NATS tells a connection what it refuses, and not to whom: the check's context ends with it.
func (d *doctor) withNATS(run func(context.Context, *natsLink) Result) func(context.Context) Result {
	return needs(&d.nats, noNATS, func(ctx context.Context, _ *natsLink) Result {
		ctx, end := context.WithCancelCause(ctx)
		defer end(nil)
		link, err := d.link(worker.EndOnRefusal(d.cfg.NATS, end))
		if err != nil {
			return noNATS()
		}
		defer link.nc.Close()
		return run(ctx, link)
	})
}

func noNATS() Result {
	return failed("look at the check nats", "not checked: no connection to NATS")
}

func (d *doctor) natsServer(ctx context.Context) Result {
	link, err := d.nats.get(ctx)
	if err != nil {
		return failed("check nats.url, that the server runs, and the credentials and certificates in nats.*", "%v", err)
	}
	rtt, err := link.nc.RTT()
	if err != nil {
		return failed("see how the server is", "asking NATS for an answer: %v", err)
	}
	if err := streams.CheckVersion(link.nc.ConnectedServerVersion()); err != nil {
		return failed("upgrade nats-server", "%v", err)
	}
	return ok("server %s (%s), %v away", link.nc.ConnectedServerName(), link.nc.ConnectedServerVersion(), rtt.Round(time.Microsecond))
}

func (d *doctor) natsTLS(ctx context.Context, link *natsLink) Result {
	if link.nc.TLSRequired() || strings.HasPrefix(link.nc.ConnectedUrl(), "tls://") || strings.HasPrefix(link.nc.ConnectedUrl(), "wss://") {
		return ok("the connection is encrypted")
	}
	if host, _, err := net.SplitHostPort(link.nc.ConnectedAddr()); err == nil && loopback(host) {
		return ok("not encrypted, and does not leave this machine")
	}
	return warning("turn TLS on in nats-server and name it in nats.url (tls://); see deploy/nats", "the connection is not encrypted: tokens pass in the clear")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// full is the share of a limit that is worth a warning.
const full = 0.8

func (d *doctor) jetStream(ctx context.Context, link *natsLink) Result {
	err := streams.CheckJetStream(ctx, link.js)
	if errors.Is(err, streams.ErrNATS) {
		return failed("start nats-server with -js, and enable JetStream for the account", "%v", err)
	}
	var info *jetstream.AccountInfo
	if err == nil {
		info, err = link.js.AccountInfo(ctx)
	}
	if err != nil {
		return link.failed(ctx, "see how the server is, and in a cluster whether it has a majority", "asking for the account's limits", err)
	}
	tier := info.Tier
	if replicated, found := info.Tiers[fmt.Sprintf("R%d", d.cfg.NATS.Replicas)]; found {
		tier = replicated
	}
	if limit := tier.Limits.MaxStore; limit > 0 && float64(tier.Store) > full*float64(limit) {
		return warning("raise the account's limit, or see which stream grows", "%d of %d bytes of storage are used", tier.Store, limit)
	}
	if err := d.room(ctx, link, tier); err != nil {
		return failed("raise the account's limits", "%v", err)
	}
	return ok("%d streams (limit %s), %d consumers (limit %s), %d bytes stored (limit %s)", tier.Streams, limit(tier.Limits.MaxStreams),
		tier.Consumers, limit(tier.Limits.MaxConsumers), tier.Store, limit(int(tier.Limits.MaxStore)))
}

// room checks that the streams that a worker has yet to create fit into the account.
func (d *doctor) room(ctx context.Context, link *natsLink, tier jetstream.Tier) error {
	found, err := inspect(ctx, d, link, nil, (*streams.Topology).Inspect)
	if err != nil {
		return nil //nolint:nilerr // the check of the streams reports it
	}
	missing, _, _ := differences(found)
	if most := tier.Limits.MaxStreams; most > 0 && tier.Streams+len(missing) > most {
		return fmt.Errorf("the account may have %d streams; %d are there and %d are missing", most, tier.Streams, len(missing))
	}
	return nil
}

// installation checks that NATS and the database belong together.
func (d *doctor) installation(ctx context.Context, link *natsLink) Result {
	db, err := d.mongo.get(ctx)
	if err != nil {
		return noMongoDB()
	}
	identity, err := inspect(ctx, d, link, db, (*streams.Topology).CheckInstallation)
	switch {
	case errors.Is(err, streams.ErrOtherInstallation):
		return failed("see docs/procedures.md, Another installation", "%v", err)
	case err != nil:
		return link.failed(ctx, "look at the checks nats and mongodb", "comparing NATS with the database", err)
	case identity.ID == "":
		return ok("no worker has started on this database yet")
	}
	return ok("%s, prefix %q", identity.ID, identity.Prefix)
}

func limit(n int) string {
	if n <= 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

// inspect has a method of the topology look at the streams. state may be nil where the
// method needs no database.
func inspect[T any](ctx context.Context, d *doctor, link *natsLink, state streams.StateStore, look func(*streams.Topology, context.Context) (T, error)) (found T, err error) {
	topology, err := streams.New(streams.Options{JetStream: link.js, State: state, Config: d.cfg, Log: zap.NewNop()})
	if err != nil {
		return found, err
	}
	return look(topology, ctx)
}
