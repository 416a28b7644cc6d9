package streams

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// ErrUnfit: somebody else keeps the streams (nats.manage_streams), and they are not what
// workers need.
var ErrUnfit = errors.New("the streams, which nats.manage_streams leaves to you, are not what a worker needs")

// verify returns an ErrUnfit that names everything that workers need and that streams and
// consumers lack. Consumers that are missing are no fault: workers make them.
func (s *Topology) verify(ctx context.Context) error {
	var unfit, wishes []string
	var away error
	add := func(what string, found Inspection) {
		switch needed := differences(found.Differs).needed(); {
		case found.Missing:
			unfit = append(unfit, what+" is missing")
		case len(needed) > 0:
			unfit = append(unfit, what+": "+needed.String())
		case len(found.Differs) > 0:
			wishes = append(wishes, what+": "+differences(found.Differs).String())
		}
	}
	for _, want := range s.requiredStreams() {
		found, err := s.inspect(ctx, want)
		if err != nil {
			away = errors.Join(away, err)
			continue
		}
		add("stream "+found.Name, found)
	}
	for _, q := range s.queues() {
		found, err := s.inspectConsumer(ctx, q)
		if err != nil {
			away = errors.Join(away, err)
			continue
		}
		if !found.Missing {
			add("consumer "+found.Name+" of "+q.stream, found)
		}
	}
	differ := strings.Join(wishes, "; ")
	if last, _ := s.differed.Swap(differ).(string); differ != "" && differ != last {
		s.log.Warn("a stream that you manage is not as configured", zap.String("differs", differ))
	}
	if len(unfit) > 0 {
		return fmt.Errorf("%w: %s (docs/streams.md)", ErrUnfit, strings.Join(unfit, "; "))
	}
	return away
}

// requiredStreams are the streams that workers need. Where somebody else keeps the streams there
// need be no canary: it only shows workers whether they may create streams again.
func (s *Topology) requiredStreams() (all []jetstream.StreamConfig) {
	for _, c := range s.configs() {
		if s.nats.ManageStreams || c.Name != s.subjects.CanaryStream() {
			all = append(all, c)
		}
	}
	return all
}
