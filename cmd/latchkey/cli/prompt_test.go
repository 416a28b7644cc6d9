package cli

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyAYesIsAYes(t *testing.T) {
	for answer, want := range map[string]error{"y\n": nil, "Yes\n": nil, " yes \r\n": nil, "y": nil, "": errUnconfirmed, "\n": errUnconfirmed, "n\n": errUnconfirmed, "yesterday\n": errUnconfirmed} {
		var out strings.Builder
		require.ErrorIs(t, ask(t.Context(), strings.NewReader(answer), &out, "Sure?"), want, "%q", answer)
		require.Equal(t, "Sure? [y/N] ", out.String())
	}
}

// TestCtrlCEndsAPrompt, though nobody types anything, and a yes after it is none.
func TestCtrlCEndsAPrompt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	typed, _ := io.Pipe()
	asked, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- ask(ctx, typed, out, "Sure?") }()
	_, err := io.ReadFull(asked, make([]byte, len("Sure? [y/N] ")))
	require.NoError(t, err)
	cancel()
	_, err = io.ReadFull(asked, make([]byte, 1))
	require.NoError(t, err, "the shell's prompt stands on its own line")
	require.ErrorIs(t, <-ended, errUnconfirmed)
	require.Error(t, ask(ctx, strings.NewReader("yes\n"), io.Discard, "Sure?"))
}
