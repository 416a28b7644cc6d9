// Package direct reads the messages of streams by JetStream's direct gets, which need no
// consumer: a permission to make or delete consumers would cover those of subscribers.
package direct

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events/pause"
)

// Reading selects messages of a stream.
type Reading struct {
	// Subject may have wildcards.
	Subject string
	// From is the first sequence. Since, if set, is used in its place.
	From  uint64
	Since time.Time
	// Through is the last sequence to read; 0: as far as the stream goes. If the server that
	// answers does not have it yet, Read waits for a second.
	Through uint64
	// Follow waits for further messages, until the context ends.
	Follow bool

	bytes int // bounds what is read with one request, apart from its last message; 0: readBytes
}

// Message is a message of a stream.
type Message struct {
	Stream   string
	Sequence uint64
	Subject  string
	Time     time.Time
	Header   nats.Header
	Data     []byte
}

// ErrNotAllowed: a stream allows no direct gets.
var ErrNotAllowed = errors.New("does not allow direct gets: a worker of this release allows them when it starts; where you keep the streams yourself set allow_direct (docs/streams.md)")

const (
	// readBatch and readBytes bound the messages that are read with one request.
	readBatch = 500
	readBytes = 4 << 20
	// readWithin bounds the wait for the next message of a request, and readTries how often
	// a request is made whose answer is lost.
	readWithin = 5 * time.Second
	readTries  = 6
	// checkEvery is how often to check whether the connection is a new one.
	checkEvery = 500 * time.Millisecond
	// retryAfter is the pause before a request is made again, and followEvery that before
	// looking for further messages.
	retryAfter  = 200 * time.Millisecond
	followEvery = time.Second
)

// Read returns messages of a stream, in order, and asks for many at once. A server other
// than the stream's leader may answer, which can lack the messages of the last moments. Read
// ends after an error.
func Read(ctx context.Context, js jetstream.JetStream, stream jetstream.Stream, r Reading) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		config := stream.CachedInfo().Config
		err := fmt.Errorf("stream %s %w", config.Name, ErrNotAllowed)
		if config.AllowDirect {
			err = (&reader{Reading: r, nc: js.Conn(), stream: config.Name, next: r.From, since: r.Since}).all(ctx, yield)
		}
		if err != nil {
			yield(Message{}, fmt.Errorf("reading stream %s: %w", config.Name, err))
		}
	}
}

// reader is how far a Read has come.
type reader struct {
	Reading
	nc     *nats.Conn
	stream string
	// next is the sequence to begin with; since, if set, comes in its place.
	next  uint64
	since time.Time
}

// errStopped: whoever reads wants no more.
var errStopped = errors.New("stopped")

func (r *reader) all(ctx context.Context, yield func(Message, error) bool) error {
	for failed := 0; ; {
		more, err := r.batch(ctx, func(m Message) bool {
			failed = 0
			return yield(m, nil)
		})
		switch {
		case errors.Is(err, errStopped):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && !more && !r.Follow && (r.Through == 0 || r.next > r.Through):
			return nil
		case err == nil && (more || r.Follow):
			failed = 0
		default:
			if failed++; failed == readTries || err != nil && !lost(err) {
				return err
			}
		}
		if err != nil || !more {
			wait := retryAfter
			if r.Follow {
				wait = followEvery
			}
			if pause.For(ctx, wait) != nil {
				return context.Cause(ctx)
			}
		}
	}
}

// batch reads with one request. more: the stream holds further messages.
func (r *reader) batch(ctx context.Context, yield func(Message) bool) (more bool, err error) {
	request := map[string]any{"next_by_subj": r.Subject, "batch": readBatch, "max_bytes": cmp.Or(r.bytes, readBytes)}
	if r.since.IsZero() {
		request["seq"] = max(r.next, 1)
	} else {
		request["start_time"] = r.since
	}
	body, err := json.Marshal(request)
	if err != nil {
		return false, err
	}
	inbox := r.nc.NewInbox()
	answers, err := r.nc.SubscribeSync(inbox)
	if err != nil {
		return false, err
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := r.nc.PublishRequest("$JS.API.DIRECT.GET."+r.stream, inbox, body); err != nil {
		return false, err
	}
	last := uint64(0) // of this request
	for {
		msg, err := r.answer(ctx, answers)
		if err != nil {
			return false, err
		}
		status := msg.Header.Get("Status")
		switch status {
		case "", "204":
			if number(msg, jetstream.LastSequenceHeader) != last {
				return false, fmt.Errorf("a message is lost on the way: %w", nats.ErrTimeout)
			}
		case "404": // nothing at all
			return false, nil
		case "503":
			return false, nats.ErrNoResponders
		default:
			return false, fmt.Errorf("NATS answers %s %s", status, msg.Header.Get("Description"))
		}
		if status != "" { // the end of what was asked for
			return number(msg, "Nats-Num-Pending") > 0, nil
		}
		at, err := time.Parse(time.RFC3339Nano, place(msg, jetstream.TimeStampHeaer))
		last = number(msg, jetstream.SequenceHeader)
		if err != nil || last == 0 {
			return false, fmt.Errorf("a message without its place in the stream: %w", err)
		}
		if r.Through > 0 && last > r.Through {
			return false, errStopped
		}
		r.next, r.since = last+1, time.Time{}
		if !yield(Message{Stream: r.stream, Sequence: last, Subject: place(msg, jetstream.SubjectHeader), Time: at, Header: msg.Header, Data: msg.Data}) {
			return false, errStopped
		}
	}
}

// answer waits for the next message of a request, which is lost with the connection.
func (r *reader) answer(ctx context.Context, answers *nats.Subscription) (*nats.Msg, error) {
	connection := r.nc.Stats().Reconnects
	for range readWithin / checkEvery {
		within, cancel := context.WithTimeout(ctx, checkEvery)
		msg, err := answers.NextMsgWithContext(within)
		cancel()
		if err == nil || !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return msg, err
		}
		if r.nc.Stats().Reconnects != connection {
			break
		}
	}
	return nil, fmt.Errorf("no answer: %w", nats.ErrTimeout)
}

// lost reports whether there was no answer: the same request may have one.
func lost(err error) bool {
	for _, known := range []error{context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrConnectionReconnecting, nats.ErrDisconnected, nats.ErrReconnectBufExceeded} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

func number(msg *nats.Msg, header string) uint64 {
	n, _ := strconv.ParseUint(place(msg, header), 10, 64) // none: 0
	return n
}

// place returns what a header says of the place of a message in the stream. NATS adds these
// headers to those of the message, which has them already if another stream passed it on.
func place(msg *nats.Msg, header string) string {
	values := msg.Header.Values(header)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
