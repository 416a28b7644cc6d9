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

// maxFailing bounds the messages whose failures are counted. The count of the message
// that failed longest ago is dropped first.
const maxFailing = 1 << 16

// failures counts how often messages failed by their own fault. The number of deliveries
// also grows with outages, stops of workers and waits for leases.
type failures struct {
	mu   sync.Mutex
	seen *lru.Cache[place, int]
}

func newFailures() *failures {
	seen, _ := lru.New[place, int](maxFailing) // fails for a size below 1 only
	return &failures{seen: seen}
}

// add counts a failure, and returns how many there were.
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

// forget drops the count of a message that will not be delivered again.
func (f *failures) forget(d *delivery) { f.seen.Remove(d.place) }
