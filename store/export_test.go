package store

// DeclaredIndexes returns the keys of the indexes that Ensure makes, by
// collection.
func DeclaredIndexes() map[string][][]string {
	all := map[string][][]string{}
	for _, i := range indexes {
		all[i.collection] = append(all[i.collection], i.keys)
	}
	return all
}
