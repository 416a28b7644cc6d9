package meshsim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/latchkey/latchkey/events/secret"
)

// JournalName is the file in [Config.Dir] with one event a line, and fingerprints in
// place of tokens. It survives the end of the process, not a loss of power.
const JournalName = "meshsim.jsonl"

// ErrForeignJournal is returned by [New] for a folder of another seed, whose tokens
// could not be derived again.
var ErrForeignJournal = errors.New("the journal belongs to another seed")

// journal appends events to a file; one without a file keeps nothing.
type journal struct{ f *os.File }

// openJournal opens the journal of a folder, replays it into b, and drops an incomplete
// last line.
func openJournal(dir string, seed secret.Text, b *book) (*journal, error) {
	if dir == "" {
		return &journal{}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the simulator's folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, JournalName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the simulator's journal: %w", err)
	}
	j := &journal{f}
	end, err := replay(f, seed, b)
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("replay the simulator's journal: %w", err), j.close())
	}
	return j, nil
}

// replay applies every whole line and returns where the last of them ends.
func replay(r io.Reader, seed secret.Text, b *book) (end int64, err error) {
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return end, nil
		}
		if err != nil {
			return end, err
		}
		var e event
		if err := decode(bytes.NewReader(line), &e); err != nil {
			return end, fmt.Errorf("line %d: %w", n, err)
		}
		if e.Opened != nil && e.Opened.Seed != FingerprintOf(seed) {
			return end, ErrForeignJournal
		}
		if err := b.apply(e); err != nil {
			return end, fmt.Errorf("line %d: %w", n, err)
		}
		end += int64(len(line))
	}
}

func (j *journal) append(events ...event) error {
	if j.f == nil {
		return nil
	}
	var buf bytes.Buffer
	for _, e := range events {
		if err := encode(&buf, e); err != nil {
			return fmt.Errorf("encode an event of the simulator: %w", err)
		}
		buf.WriteByte('\n')
	}
	if _, err := j.f.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("write the simulator's journal: %w", err)
	}
	return nil
}

func (j *journal) close() error {
	if j.f == nil {
		return nil
	}
	return j.f.Close()
}
