package handlers

import (
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
)

// place is where a message lies in a stream.
type place struct {
	stream   string
	sequence uint64
}

// maxFailing bounds of how many messages the failures are counted at once. The
// message that failed longest ago is forgotten first, and begins anew.
const maxFailing = 1 << 16

// failures counts how often messages failed by their own fault. The number of
// deliveries does not tell: it grows with every outage, every stop of a worker
// and every wait for a lease.
type failures struct {
	mu   sync.Mutex
	seen *lru.Cache[place, int]
}

func newFailures() *failures {
	seen, err := lru.New[place, int](maxFailing)
	if err != nil {
		panic(err) // the size is positive
	}
	return &failures{seen: seen}
}

// add counts one failure more, and returns how many there were.
func (f *failures) add(d *delivery) int {
	if d.place == (place{}) {
		return d.Attempt
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, _ := f.seen.Get(d.place)
	f.seen.Add(d.place, n+1)
	return n + 1
}

// forget is for a message that will not come again.
func (f *failures) forget(d *delivery) { f.seen.Remove(d.place) }
