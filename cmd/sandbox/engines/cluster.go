package engines

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Cluster is several embedded NATS servers that replicate their streams among each other.
type Cluster struct{ nodes []*NATS }

// StartCluster starts n servers, odd and at least 3, and returns when every one accepts clients and they have a leader
// that knows them all, so that streams can be made. Each has a directory of its own below opts.Dir and free ports; the
// other options hold for every server.
func StartCluster(n int, opts NATSOptions) (*Cluster, error) {
	if n < 3 || n%2 == 0 {
		return nil, fmt.Errorf("starting a NATS cluster: %d servers cannot outvote each other", n)
	}
	if opts.Dir == "" {
		return nil, errors.New("starting a NATS cluster: no directory given")
	}
	routes := make([]*url.URL, n)
	ports := make([]int, n)
	for i := range n {
		port, err := claimPort(0)
		if err != nil {
			return nil, fmt.Errorf("starting a NATS cluster: %w", err)
		}
		ports[i] = port
		routes[i] = &url.URL{Scheme: "nats-route", Host: address(port)}
	}
	c := &Cluster{}
	for i := range n {
		node, err := newNATS(clusterNode(opts, i, ports[i], routes))
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, node)
	}
	if err := c.start(); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// clusterNode changes the options of a single server to those of the i-th of a cluster.
func clusterNode(opts NATSOptions, i, routePort int, routes []*url.URL) NATSOptions {
	configure := opts.Configure
	name := fmt.Sprintf("node%d", i)
	opts.Dir = filepath.Join(opts.Dir, name)
	opts.Port = 0
	opts.Configure = func(o *server.Options) {
		o.ServerName = name
		o.Cluster = server.ClusterOpts{Name: "sandbox", Host: loopback, Port: routePort}
		o.Routes = routes
		if configure != nil {
			configure(o)
		}
	}
	return opts
}

// start starts all servers before it waits for any: each is ready only when a majority is there.
func (c *Cluster) start() error {
	for _, n := range c.nodes {
		if err := n.launch(); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := n.await(); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(natsStartTimeout); !c.hasLeader(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("starting a NATS cluster: no leader of all servers after %v", natsStartTimeout)
		}
	}
	return nil
}

// hasLeader reports whether the servers have a leader that knows them all.
func (c *Cluster) hasLeader() bool {
	return slices.ContainsFunc(c.nodes, func(n *NATS) bool { return len(n.Server().JetStreamClusterPeers()) == len(c.nodes) })
}

func (c *Cluster) Reload() error {
	var err error
	for _, n := range c.nodes {
		err = errors.Join(err, n.Reload())
	}
	return err
}

func (c *Cluster) Node(i int) *NATS { return c.nodes[i] }

// URL returns the addresses of all servers as clients take them, separated by commas.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		urls[i] = n.URL()
	}
	return strings.Join(urls, ",")
}

func (c *Cluster) Stop() {
	for _, n := range c.nodes {
		n.Stop()
	}
}
