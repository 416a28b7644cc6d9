package imports

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
)

// lines reads lines of bounded length, and hashes and counts what it has read.
type lines struct {
	in     *bufio.Reader
	hash   hash.Hash
	number int64
	offset int64
}

// errTooLong: a line is longer than the bound, and was skipped.
var errTooLong = errors.New("longer than connect.max_bytes")

func newLines(in io.Reader, maxBytes int) *lines {
	return &lines{in: bufio.NewReaderSize(in, maxBytes+2), hash: sha256.New()} // room for the line's end
}

// next returns the next line without its end, io.EOF after the last.
func (l *lines) next() ([]byte, error) {
	read, err := l.in.ReadSlice('\n')
	l.add(read)
	long := errors.Is(err, bufio.ErrBufferFull)
	line := bytes.TrimRight(bytes.Clone(read), "\r\n")
	for errors.Is(err, bufio.ErrBufferFull) {
		read, err = l.in.ReadSlice('\n')
		l.add(read)
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case err != nil && len(read) == 0 && !long:
		return nil, io.EOF
	}
	l.number++
	if long {
		return nil, errTooLong
	}
	return line, nil
}

func (l *lines) add(read []byte) {
	l.hash.Write(read)
	l.offset += int64(len(read))
}
