package imports

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// State is how far an import has come. It holds nothing of the lines.
type State struct {
	// Offset is the end, in bytes, of the last line that is done with, and
	// SHA256 the hash of all up to there: by it a changed input is noticed.
	Offset int64  `json:"offset"`
	SHA256 string `json:"sha256"`
	// Lines is how many lines are done with, empty ones among them.
	Lines int64 `json:"lines"`
	// Accepted lines were published (or would be).
	Accepted int64 `json:"accepted"`
	// Repeated lines stood in the input before, word for word.
	Repeated int64 `json:"repeated"`
	Rejected int64 `json:"rejected"`
	// RejectsBytes is the size of the file with the rejects.
	RejectsBytes int64 `json:"rejectsBytes"`
	// StartedAt is when the import began.
	StartedAt time.Time `json:"startedAt"`
}

// loadState reads a state; a missing file is the zero state.
func loadState(path string) (State, error) {
	var s State
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err == nil && (s.Offset < 0 || s.StartedAt.IsZero()) {
		err = errors.New("not a state of an import")
	}
	if err != nil {
		return s, fmt.Errorf("reading the state in %s: %w", path, err)
	}
	return s, nil
}

// save writes the state in one step: a crash leaves this one or the one before.
func (s State) save(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the state: %w", err)
		}
	}()
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
