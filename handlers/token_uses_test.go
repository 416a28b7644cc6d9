package handlers

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/store"
)

func TestUsesAreWrittenTogetherAndTooManyAreDropped(t *testing.T) {
	var written []int
	u := newUses(func(_ context.Context, grants ...*store.Grant) error {
		written = append(written, len(grants))
		return nil
	}, zap.NewNop())
	taken := 0
	for i := range maxUses + 10 {
		if u.note(&store.Grant{ID: fmt.Sprint(i)}) {
			taken++
		}
	}
	require.Equal(t, maxUses, taken)
	go u.run()
	u.stop()
	all := 0
	for _, n := range written {
		require.LessOrEqual(t, n, usesAt)
		all += n
	}
	require.Equal(t, maxUses, all, "what is left is written at the end")
	require.Len(t, written, (maxUses+usesAt-1)/usesAt)
}

func TestUsesThatCannotBeWrittenAreOnlyMentioned(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	u := newUses(func(context.Context, ...*store.Grant) error { return errors.New("away") }, zap.New(core))
	require.True(t, u.note(&store.Grant{}))
	go u.run()
	u.stop()
	require.Equal(t, 1, logs.FilterMessageSnippet("could not be noted").Len())
	require.Equal(t, zapcore.DebugLevel, logs.All()[0].Level)
}
