package tokens

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// unseen is a random text that no memory of this process holds in the clear.
type unseen []byte

const mask = 0x80

func newUnseen() unseen {
	u := unseen("~" + rand.Text() + rand.Text())
	for i := range u {
		u[i] ^= mask
	}
	return u
}

// appendTo appends the text in the clear to memory that the caller wipes.
func (u unseen) appendTo(b []byte) []byte {
	for _, c := range u {
		b = append(b, c^mask)
	}
	return b
}

func (u unseen) begins(b []byte) bool {
	for i, c := range u {
		if i == len(b) || b[i] != c^mask {
			return false
		}
	}
	return true
}

// in counts how often the text stands in some memory.
func (u unseen) in(memory []byte) (n int) {
	for at := bytes.IndexByte(memory, '~'); at >= 0; at = bytes.IndexByte(memory, '~') {
		memory = memory[at:]
		if u.begins(memory) {
			n++
		}
		memory = memory[1:]
	}
	return n
}

// copies counts how often the text stands in the memory that this process can write.
func (u unseen) copies(t *testing.T) (n int) {
	t.Helper()
	maps, err := os.Open("/proc/self/maps")
	require.NoError(t, err)
	defer func() { _ = maps.Close() }()
	memory, err := os.Open("/proc/self/mem")
	require.NoError(t, err)
	defer func() { _ = memory.Close() }()
	chunk := make([]byte, 1<<20)
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var rights string
		_, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights)
		require.NoError(t, err)
		for ; rights[:2] == "rw" && from < to; from += uint64(len(chunk) - len(u)) { // what lies across two is read again
			got, err := memory.ReadAt(chunk[:min(uint64(len(chunk)), to-from)], int64(from))
			if err != nil {
				break // reserved, and not in use
			}
			n += u.in(chunk[:got])
			clear(chunk)
		}
	}
	return n
}

// Once an answer has left, its tokens are nowhere in memory, and refresh tokens never are
// but for the moment in which a set is open.
func TestNoCopyOfATokenOutlivesTheAnswer(t *testing.T) {
	s, access, refresh := unseenTokens(t)
	for range 3 {
		a := unsent(t, s)
		out, err := s.get(t.Context(), a.in, &a.record, nobody)
		require.NoError(t, err)
		a.body, err = out.encode(nil)
		require.NoError(t, err)
		require.Equal(t, 1, access.in(a.body))
		require.Positive(t, access.copies(t), "they are found where they are")
		a.send(refuse(events.CodeBusy, "the audit log does not permit it"))
		require.Zero(t, access.copies(t))
		require.Zero(t, refresh.copies(t))
	}
}

// So it is if a panic ends the answer, while it is made and when it is about to leave.
func TestNoCopyOfATokenOutlivesAPanic(t *testing.T) {
	s, access, refresh := unseenTokens(t)
	now, whole := s.opts.Now, s.opts.Refresher
	breaks := func() { s.opts.Now = func() time.Time { panic("a value that is not kept") } }
	get := func(a *answer) (*reply, error) { return s.get(t.Context(), a.in, &a.record, nobody) }

	s.opts.Refresher = breaking{whole, breaks}
	a := unsent(t, s)
	a.answerWith(func() (*reply, error) { return get(a) })
	require.True(t, a.answered.Load())
	require.Zero(t, access.copies(t))
	require.Zero(t, refresh.copies(t))

	s.opts.Refresher, s.opts.Now = whole, now
	a = unsent(t, s)
	out, err := get(a)
	require.NoError(t, err)
	a.body, err = out.encode(nil)
	require.NoError(t, err)
	breaks()
	a.recorded(nil)
	require.True(t, a.answered.Load())
	require.Zero(t, access.copies(t))
}

// breaking is a refresher that breaks something once it has opened tokens.
type breaking struct {
	Refresher
	breaks func()
}

func (b breaking) Access(ctx context.Context, g *store.Grant) (*store.Grant, *store.AccessTexts, error) {
	defer b.breaks()
	return b.Refresher.Access(ctx, g)
}

// unseenTokens is a service for one user, whose tokens no memory holds in the clear.
func unseenTokens(t *testing.T) (s *Service, access, refresh unseen) {
	t.Helper()
	f := &fixture{t: t}
	e := f.envelope()
	access, refresh = newUnseen(), newUnseen()
	g := grantOf(t, e, "alice")
	g.Sealed = sealedUnseen(t, e, g, access, refresh)
	s = f.tokenService(e, func(context.Context, string) ([]*store.Grant, error) { return []*store.Grant{g}, nil })
	s.conn = &nats.Conn{} // which sends nothing
	return s, access, refresh
}

// unsent is an answer to that user that does not leave.
func unsent(t *testing.T, s *Service) *answer {
	t.Helper()
	s.atWork.Add(1)
	return &answer{Service: s, ctx: t.Context(), in: events.TokenRequest{UserID: "alice"}, req: requestWith{}, cancel: func() {}}
}

// sealedUnseen is a token set that was never in memory but here.
func sealedUnseen(t *testing.T, e *envelope.Envelope, g *store.Grant, access, refresh unseen) envelope.Blob {
	t.Helper()
	sealer, err := e.Sealer(t.Context(), g.UserID)
	require.NoError(t, err)
	plain := make([]byte, 0, 1<<10)
	plain = access.appendTo(append(plain, `{"a":[{"i":"account","a":"`...))
	plain = refresh.appendTo(append(plain, `"}],"r":"`...))
	plain = append(plain, `"}`...)
	defer clear(plain)
	return sealer.Seal(plain, g.Binding())
}
