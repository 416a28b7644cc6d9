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
	// Offset is where the last finished line ends, in bytes, and SHA256 the hash of the
	// input up to there, to detect a changed input.
	Offset int64  `json:"offset"`
	SHA256 string `json:"sha256"`
	// Lines counts finished lines, empty ones too.
	Lines int64 `json:"lines"`
	// Accepted lines were published (or would be).
	Accepted int64 `json:"accepted"`
	// Repeated lines are the same as an earlier line, to the byte.
	Repeated int64 `json:"repeated"`
	Rejected int64 `json:"rejected"`
	// RejectsBytes is the size of the rejects file.
	RejectsBytes int64 `json:"rejectsBytes"`
	// StartedAt is when the import began.
	StartedAt time.Time `json:"startedAt"`
}

// loadState reads a state. It returns the zero state if there is no file.
func loadState(path string) (s State, err error) {
	if path == "" {
		return s, nil
	}
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

// save writes the state atomically: a crash leaves the old state or the new one.
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
