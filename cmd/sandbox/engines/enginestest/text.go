package enginestest

import (
	"strings"
	"sync"
)

// Text keeps what several goroutines write, such as a log. The zero value is empty.
type Text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

// Sync makes a Text a zapcore.WriteSyncer.
func (t *Text) Sync() error { return nil }

func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
