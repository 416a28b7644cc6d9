package engines_test

import (
	"fmt"
	"strings"
	"sync"
)

// syncedText keeps what several goroutines write.
type syncedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncedText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncedText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// natsLog is a log of a NATS server kept in memory.
type natsLog struct{ syncedText }

func (l *natsLog) add(format string, v ...any) { fmt.Fprintf(l, format+"\n", v...) }

func (l *natsLog) Noticef(format string, v ...any) { l.add(format, v...) }
func (l *natsLog) Warnf(format string, v ...any)   { l.add(format, v...) }
func (l *natsLog) Fatalf(format string, v ...any)  { l.add(format, v...) }
func (l *natsLog) Errorf(format string, v ...any)  { l.add(format, v...) }
func (l *natsLog) Debugf(format string, v ...any)  { l.add(format, v...) }
func (l *natsLog) Tracef(format string, v ...any)  { l.add(format, v...) }
