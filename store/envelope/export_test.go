package envelope

// Memory returns the memory in which the data keys lie that are at hand now,
// for tests that look at what becomes of it.
func (e *Envelope) Memory() map[string][][]byte {
	found := map[string][][]byte{}
	for _, key := range e.cache.Values() {
		found[key.id] = key.memory()
	}
	for _, key := range e.active.Values() {
		found[key.id] = key.material.memory()
	}
	return found
}

// CachedKeys returns how many keys for opening are cached.
func (e *Envelope) CachedKeys() int { return e.cache.Len() }

// KeysInMemory returns how many data keys are in memory.
func (e *Envelope) KeysInMemory() int { return int(e.inMemory.Load()) }
