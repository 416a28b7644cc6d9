package engines

import (
	"hash/maphash"
	"slices"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// writeLocks keep apart writes to the same document, which FerretDB reads, changes and writes without a lock. Writes to
// documents with different ids run concurrently; one whose documents are not known runs alone.
type writeLocks struct {
	all      sync.RWMutex    // shared by the writes that name their documents, exclusive for the others
	stripes  [256]sync.Mutex // each for many ids; several are taken in ascending order
	seed     maphash.Seed
	oneByOne bool // every write takes all
}

// lock waits until a write may run. The caller calls unlock when it has ended.
func (l *writeLocks) lock(c command) (unlock func()) {
	ids, ok := c.ids()
	if !ok || l.oneByOne {
		l.all.Lock()
		return l.all.Unlock
	}
	l.all.RLock()
	stripes := l.stripesOf(c, ids)
	for _, i := range stripes {
		l.stripes[i].Lock()
	}
	return func() {
		for _, i := range stripes {
			l.stripes[i].Unlock()
		}
		l.all.RUnlock()
	}
}

// stripesOf returns the stripes of documents in a command's collection, ascending.
func (l *writeLocks) stripesOf(c command, ids []string) []int {
	stripes := make([]int, len(ids))
	for i, id := range ids {
		hash := maphash.Comparable(l.seed, [3]string{c.db, c.collection, id})
		stripes[i] = int(hash % uint64(len(l.stripes)))
	}
	slices.Sort(stripes)
	return slices.Compact(stripes)
}

// ids returns the ids of the documents that a write can touch, or false if it may touch others. Inserted ids other than
// strings are left out: a later write to such a document runs alone.
func (c command) ids() ([]string, bool) {
	if docs := c.sequences["documents"]; c.name == "insert" && len(c.sequences) == 1 {
		var ids []string
		for _, doc := range docs {
			if id, ok := doc.Lookup("_id").StringValueOK(); ok {
				ids = append(ids, id)
			}
		}
		return ids, true
	}
	statement, key, ok := c.statement()
	if !ok {
		return nil, false
	}
	query, ok := statement.Lookup(key).DocumentOK()
	if !ok {
		return nil, false
	}
	id, _, ok := byID(query)
	return []string{id}, ok
}

// byID returns the one id that a query demands of a document, and the query's other elements.
func byID(query bsoncore.Document) (id string, others bson.D, ok bool) {
	if bson.Unmarshal(query, &others) != nil {
		return "", nil, false
	}
	i := slices.IndexFunc(others, func(e bson.E) bool { return e.Key == "_id" })
	if i < 0 {
		return "", nil, false
	}
	id, ok = others[i].Value.(string)
	return id, slices.Delete(others, i, i+1), ok
}
