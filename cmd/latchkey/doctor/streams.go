package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers/tokens"
	"github.com/latchkey/latchkey/store/parts"
	"github.com/latchkey/latchkey/store/streams"
)

const (
	doRestart = "restart a worker: at its start it makes what is missing and brings what it owns up to the configuration"
	doFirst   = "start a worker: it makes them"
	doServer  = "look at the checks nats and nats jetstream"
	doKeep    = "nats.manage_streams is false: make them so where you keep them (docs/streams.md)"
)

func (d *doctor) streams(ctx context.Context, link *natsLink) Result {
	d.timeNATS(ctx, link)
	all, err := inspect(ctx, d, link, nil, (*streams.Topology).Inspect)
	if err != nil {
		return link.failed(ctx, doServer, "comparing streams", err)
	}
	return d.compare(all, d.cure(), func(missing string) Result {
		if !d.cfg.NATS.ManageStreams {
			return failed(doKeep, "%s", missing)
		}
		return d.noStreams(ctx)
	}, func() Result { return d.replicas(all) })
}

// noStreams distinguishes a first start from lost streams.
func (d *doctor) noStreams(ctx context.Context) Result {
	db, err := d.mongo.get(ctx)
	if err != nil {
		return failed("look at the check mongodb", "there are none, and MongoDB can't be asked whether there were any")
	}
	known, err := db.StreamIdentity(ctx)
	switch {
	case err != nil:
		return failed("look at the check mongodb", "there are none, and MongoDB can't be asked whether there were any: %v", err)
	case known != "":
		return failed("before anything else see docs/operations.md, \"NATS was wiped\" and \"NATS runs with another encryption key\"",
			"the streams are gone: MongoDB remembers that there were some")
	}
	return warning(doFirst, "there are none yet: no worker has run here")
}

func (d *doctor) replicas(all []streams.Inspection) Result {
	var behind, fewer, kept []string
	cluster := ""
	for _, s := range all {
		if s.Stream.Config.Replicas < d.cfg.NATS.Replicas {
			fewer = append(fewer, fmt.Sprintf("%s has %d", s.Name, s.Stream.Config.Replicas))
		}
		if len(s.Kept) > 0 {
			kept = append(kept, fmt.Sprintf("%s (%s)", s.Name, strings.Join(s.Kept, ", ")))
		}
		if s.Stream.Cluster == nil {
			continue
		}
		cluster = s.Stream.Cluster.Name
		for _, peer := range s.Stream.Cluster.Replicas {
			if !peer.Current || peer.Offline {
				behind = append(behind, s.Name+" on "+peer.Name)
			}
		}
	}
	switch {
	case len(behind) > 0:
		return warning("see how those servers are", "copies that are away or behind: %s", strings.Join(behind, ", "))
	case len(fewer) > 0:
		return warning(fmt.Sprintf("for each of them: nats stream edit STREAM --replicas %d; workers leave the streams that are there as they are", d.cfg.NATS.Replicas),
			"nats.replicas is %d, but %s", d.cfg.NATS.Replicas, strings.Join(fewer, ", "))
	case cluster != "" && all[0].Stream.Config.Replicas == 1:
		return warning("set nats.replicas: 3, and for each stream: nats stream edit STREAM --replicas 3", "%d streams as configured, but each on one server of the cluster %s only", len(all), cluster)
	}
	if stream, early := d.lostEarly(all); early != "" {
		return warning("raise its limit, before subscribers miss events: nats stream edit "+stream+" --max-bytes SIZE", "%s", early)
	}
	if len(kept) > 0 {
		return ok("%d streams as configured; left as somebody set it: %s", len(all), strings.Join(kept, ", "))
	}
	return ok("%d streams as configured, %d copies each", len(all), d.cfg.NATS.Replicas)
}

// lostEarly says whether a stream of events is so full that it gives up events before
// their time, and names the first.
func (d *doctor) lostEarly(all []streams.Inspection) (stream, early string) {
	partitions := d.subjects.LifecyclePartitions()
	for _, s := range all {
		most, state := s.Stream.Config.MaxBytes, s.Stream.State
		ours := slices.ContainsFunc(partitions, func(p events.LifecyclePartition) bool { return p.Stream == s.Name })
		if ours && most > 0 && float64(state.Bytes) > full*float64(most) && d.now().Sub(state.FirstTime) < s.Stream.Config.MaxAge {
			return s.Name, fmt.Sprintf("%s holds %d of at most %d bytes, and its first event is of %s", s.Name, state.Bytes, most, state.FirstTime.UTC().Format(time.RFC3339))
		}
	}
	return "", ""
}

// timeNATS reads the clock of NATS.
func (d *doctor) timeNATS(ctx context.Context, link *natsLink) {
	began := d.now()
	stream, err := link.js.Stream(ctx, d.subjects.RefreshStream())
	if err == nil {
		d.timed("nats", began, stream.CachedInfo().TimeStamp, 0)
	}
}

func (d *doctor) consumers(ctx context.Context, link *natsLink) Result {
	all, err := inspect(ctx, d, link, nil, (*streams.Topology).InspectConsumers)
	if err != nil {
		return link.failed(ctx, doServer, "comparing consumers", err)
	}
	return d.compare(all, doRestart, func(string) Result {
		return warning(doFirst, "there are none yet: no worker has run here, or the streams are gone")
	}, func() Result { return ok("%d consumers as configured", len(all)) })
}

// cure says how to correct what differs.
func (d *doctor) cure() string {
	if d.cfg.NATS.ManageStreams {
		return doRestart
	}
	return doKeep
}

// compare reports streams or consumers that are missing (do says what to do then) or not
// as configured. It calls none if all are missing, and good if nothing is wrong.
func (d *doctor) compare(all []streams.Inspection, do string, none func(missing string) Result, good func() Result) Result {
	missing, differ, unfit := differences(all)
	var wrong []string
	if len(missing) > 0 {
		wrong = append(wrong, "missing: "+strings.Join(missing, ", "))
	}
	unfit = unfit && !d.cfg.NATS.ManageStreams // else the next start sets it right
	if unfit {
		wrong = append(wrong, "not as needed: "+strings.Join(differ, "; "))
	}
	switch {
	case len(missing) == len(all):
		return none(wrong[0])
	case len(wrong) > 0:
		if unfit {
			do = d.cure()
		}
		return failed(do, "%s", strings.Join(wrong, "; "))
	case len(differ) > 0:
		return warning(d.cure(), "not as configured: %s", strings.Join(differ, "; "))
	}
	return good()
}

// differences names what is missing and what is not as it should be. unfit: a worker needs
// some of the latter.
func differences(all []streams.Inspection) (missing, differ []string, unfit bool) {
	for _, f := range all {
		switch {
		case f.Missing:
			missing = append(missing, f.Name)
		case len(f.Differs) > 0:
			differ = append(differ, fmt.Sprintf("%s (%s)", f.Name, f.Text()))
			unfit = unfit || f.Unfit()
		}
	}
	return missing, differ, unfit
}

// inboxes finds streams that would store replies with tokens.
func (d *doctor) inboxes(ctx context.Context, link *natsLink) Result {
	in, err := events.NewInboxes(d.subjects, d.cfg.Tokens.InboxPrefixes...)
	if err != nil {
		return failed("see tokens.inbox_prefixes", "%v", err)
	}
	found, err := tokens.InboxCollectors(ctx, link.js, in)
	switch {
	case err != nil:
		return link.failed(ctx, doServer, "looking for streams of inboxes", err)
	case len(found) > 0:
		return failed("take these subjects out of the streams: workers send no tokens to those inboxes", "streams store what is sent to inboxes: %v", found)
	}
	return ok("no stream of this account stores replies to token requests")
}

// comeBack looks for messages that were delivered more than once and still wait.
// None do for long in an installation that is well.
func (d *doctor) comeBack(ctx context.Context, link *natsLink) Result {
	all, err := inspect(ctx, d, link, nil, (*streams.Topology).Backlogs)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return ok("no consumers yet")
	}
	if err != nil {
		return link.failed(ctx, "look at the check nats consumers", "counting what waits", err)
	}
	var found []string
	for _, b := range all {
		if b.Redelivered > 0 {
			found = append(found, fmt.Sprintf("%d on %s", b.Redelivered, b.Subject))
		}
	}
	if len(found) > 0 {
		return warning(`see "a message comes back later" in the workers' logs; if no engine is away, the error there says what is wrong with them`,
			"messages that were tried before and wait: %s", strings.Join(found, ", "))
	}
	return ok("none")
}

func (d *doctor) deadLetters(ctx context.Context, link *natsLink) Result {
	return d.waiting(ctx, link, d.subjects.DeadLetterStream(), d.subjects.DeadLetterParts(), "dead letters", "latchkey deadletters list; cure the cause, then replay or drop them")
}

func (d *doctor) recovery(ctx context.Context, link *natsLink) Result {
	return d.waiting(ctx, link, d.subjects.RecoveryStream(), d.subjects.RecoveryParts(), "answers of Mesh that MongoDB did not take",
		"keep NATS up and workers running until they are applied; if that takes longer than minutes, see the workers' logs")
}

// waiting counts the messages of a stream that should be empty, without parts of
// messages.
func (d *doctor) waiting(ctx context.Context, link *natsLink, name, partSubjects, what, do string) Result {
	stream, err := link.js.Stream(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return ok("no stream %s yet", name)
	case err != nil:
		return link.failed(ctx, "look at the check nats streams", "inspecting stream "+name, err)
	}
	n, err := parts.CountWithoutParts(ctx, stream, partSubjects)
	switch {
	case err != nil:
		return link.failed(ctx, "look at the check nats streams", "inspecting stream "+name, err)
	case n > 0:
		return warning(do, "%d %s wait", n, what)
	}
	return ok("none")
}
