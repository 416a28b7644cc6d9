package engines_test

import (
	"fmt"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

// natsLog is a log of a NATS server kept in memory.
type natsLog struct{ enginestest.Text }

func (l *natsLog) add(format string, v ...any) { fmt.Fprintf(l, format+"\n", v...) }

func (l *natsLog) Noticef(format string, v ...any) { l.add(format, v...) }
func (l *natsLog) Warnf(format string, v ...any)   { l.add(format, v...) }
func (l *natsLog) Fatalf(format string, v ...any)  { l.add(format, v...) }
func (l *natsLog) Errorf(format string, v ...any)  { l.add(format, v...) }
func (l *natsLog) Debugf(format string, v ...any)  { l.add(format, v...) }
func (l *natsLog) Tracef(format string, v ...any)  { l.add(format, v...) }
