package imports

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Reject says why a line was not imported. It holds nothing of the line.
type Reject struct {
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
}

// rejects writes rejects to a file, one JSON object a line. Without a file it does
// nothing.
type rejects struct {
	file *os.File
	size int64
}

// openRejects opens the file and truncates it to the size that the state knows.
func openRejects(path string, size int64) (*rejects, error) {
	if path == "" {
		return &rejects{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the file for rejects: %w", err)
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		size = min(size, end)
		err = f.Truncate(size)
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("preparing the file for rejects: %w", err)
	}
	return &rejects{f, size}, nil
}

func (r *rejects) add(reject Reject) error {
	if r.file == nil {
		return nil
	}
	b, err := json.Marshal(reject)
	if err != nil {
		return fmt.Errorf("encoding a reject: %w", err)
	}
	n, err := r.file.Write(append(b, '\n'))
	r.size += int64(n)
	if err != nil {
		return fmt.Errorf("writing a reject: %w", err)
	}
	return nil
}

func (r *rejects) sync() error {
	if r.file == nil {
		return nil
	}
	if err := r.file.Sync(); err != nil {
		return fmt.Errorf("writing the rejects: %w", err)
	}
	return nil
}

func (r *rejects) close() {
	if r.file != nil {
		_ = r.file.Close() // synced with the last state
	}
}
