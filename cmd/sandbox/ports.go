package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/traceview"
)

// ports are those of this machine on which the sandbox listens. 0 takes any free one.
type ports struct {
	nats, mongodb, kms, mesh, admin, page, link, traces int
}

const defaultPagePort = 4601

// listener is one that has a port, by the flag that sets it.
type listener struct {
	flag, name string
	port       *int
	usual      int
}

func (p *ports) listeners() []listener {
	return []listener{
		{"nats-port", "NATS", &p.nats, 4222},
		{"mongodb-port", "MongoDB", &p.mongodb, 27017},
		{"kms-port", "the simulated KMS", &p.kms, 4599},
		{"mesh-port", "the simulated Mesh", &p.mesh, 4600},
		{"admin-port", "the worker's metrics and the operator's page (admin.listen)", &p.admin, 9464},
		{"page-port", "the page", &p.page, defaultPagePort},
		{"link-port", "the simulated Link", &p.link, 4602},
		{"traces-port", "the collector for traces and the page that shows them", &p.traces, traceview.Port},
	}
}

// addTo adds a flag for each port.
func (p *ports) addTo(flags *pflag.FlagSet) {
	for _, l := range p.listeners() {
		flags.IntVar(l.port, l.flag, l.usual, "port of "+l.name+"; 0: any free one")
	}
}

// check reports all ports that can't be listened on, each with its flag.
func (p *ports) check() error {
	var all []error
	takenBy := map[int]string{}
	for _, l := range p.listeners() {
		port := *l.port
		if port == 0 {
			continue
		}
		if other, taken := takenBy[port]; taken {
			all = append(all, fmt.Errorf("port %d of %s is that of --%s too: --%s sets another, 0 any free one", port, l.name, other, l.flag))
			continue
		}
		takenBy[port] = l.flag
		if err := engines.CheckPort(port); err != nil {
			all = append(all, fmt.Errorf("port %d of %s: %w: --%s sets another, 0 any free one", port, l.name, err, l.flag))
		}
	}
	return errors.Join(all...)
}
