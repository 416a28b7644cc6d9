package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// texts are the texts of an SVG. It must be well-formed.
func texts(t *testing.T, svg []byte) (out []string) {
	t.Helper()
	in := xml.NewDecoder(bytes.NewReader(svg))
	inText := false
	for {
		token, err := in.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			inText = token.Name.Local == "text"
		case xml.CharData:
			if inText {
				out = append(out, string(token))
			}
		case xml.EndElement:
			inText = false
		}
	}
}

func TestAPictureShowsWhatWasWritten(t *testing.T) {
	now := time.Unix(0, 0)
	var passed bytes.Buffer
	r := &recording{to: &passed, now: func() time.Time { return now }}
	for i := range pictureRows + 10 {
		fmt.Fprintf(r, "line %d & <", i)
		now = now.Add(time.Second)
		fmt.Fprint(r, "more>\n")
	}
	require.Contains(t, passed.String(), "line 0 & <more>\nline 1 & <more>\n")
	file := filepath.Join(t.TempDir(), "picture.svg")
	require.NoError(t, r.save(file))
	svg, err := os.ReadFile(file)
	require.NoError(t, err)
	shown := texts(t, svg)
	require.Len(t, shown, pictureRows+10)
	require.Equal(t, "line 0 & <more>", shown[0])

	// The first line comes in at the bottom, and at the end the last one stands there.
	p := r.picture()
	require.Equal(t, pictureMove{"0.00%", (pictureRows - 1) * lineHeight}, p.Moves[0])
	require.Equal(t, -10*lineHeight, p.Last)
	require.InDelta(t, (pictureRows+9)/pictureSpeed+pictureRest.Seconds(), p.Seconds, 0.1)
}

func TestThePictureIsThatOfTheDemo(t *testing.T) {
	svg, err := os.ReadFile("../../docs/pictures/demo.svg")
	require.NoError(t, err)
	require.Less(t, len(svg), 200_000)
	shown := fmt.Sprintln(texts(t, svg))
	for _, u := range demoUsers() {
		require.Contains(t, shown, "connects "+u.spec.BrokerName+": "+u.story, "run make picture")
	}
	require.Contains(t, shown, "sandbox connect alice", "run make picture")
	require.NotContains(t, shown, "AMISS")
}
