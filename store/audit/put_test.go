package audit_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store/audit"
)

func TestWhoPutsARecordIsToldOnce(t *testing.T) {
	f := newFixture(t, enginestest.NATS(t).URL())
	held, let := make(chan struct{}, 1), make(chan struct{})
	p := &publisher{publish: audit.PublishOver(f.js.Conn()), before: func() error {
		select {
		case held <- struct{}{}:
		default:
		}
		<-let
		return nil
	}}
	l := f.log(func(o *audit.Options) { o.Publish = p.publishSpoilt })
	<-held // the beginning is on its way
	let <- struct{}{}
	type answer struct {
		user string
		err  error
	}
	told := make(chan answer, 100)
	put := func(user string, within time.Duration) {
		l.Put(handedOut(user), within, func(err error) { told <- answer{user, err} })
	}
	l.Add(handedOut("holder"))
	<-held
	const waiting = 20
	for i := range waiting {
		put(fmt.Sprint("late ", i), time.Millisecond*time.Duration(1+i))
	}
	late := map[string]bool{}
	expectLate := func() {
		t.Helper()
		a := <-told
		require.ErrorIs(t, a.err, audit.ErrUnwritten)
		require.ErrorIs(t, a.err, context.DeadlineExceeded)
		require.False(t, late[a.user])
		late[a.user] = true
	}
	for range waiting {
		expectLate()
	}
	put("patient", patience)
	put("on its way", 100*time.Millisecond)
	let <- struct{}{}
	<-held
	expectLate()
	require.True(t, late["on its way"])
	close(let)
	require.Equal(t, answer{"patient", nil}, <-told)
	f.stop(l)
	put("after the end", patience)
	a := <-told
	require.ErrorIs(t, a.err, audit.ErrClosed)
	require.Empty(t, told, "nobody is told twice")
	var users []string
	for _, e := range f.records() {
		if e.User != "on its way" { // on a slow machine it was withdrawn
			users = append(users, e.User)
		}
	}
	require.Equal(t, []string{"", "holder", "patient", ""}, users, "what was late and not on its way is withdrawn")
	_, faults, _ := f.verify()
	require.Empty(t, faults)

	var none *audit.Log
	var calls atomic.Int64
	none.Put(handedOut("u"), 0, func(err error) {
		require.NoError(t, err)
		calls.Add(1)
	})
	require.EqualValues(t, 1, calls.Load())
}
