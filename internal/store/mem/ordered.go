package mem

import (
	"slices"
	"strings"

	"flota/internal/store"
)

// chunkMax is how many items a chunk holds before it is split in two. 512, so that 100,000 keys are about 300 chunks and an
// insertion moves at most 4 KB.
const chunkMax = 512

// ordered is a map from key to item that can be walked in the order of keys: a list of sorted chunks, none of
// them empty. The items are never changed once in it. The zero value is empty.
type ordered struct {
	chunks [][]*store.Item
	size   int
}

// find gives the chunk and the place in it where key is or belongs.
func (o *ordered) find(key string) (chunk, at int, found bool) {
	// The chunk wanted is the last one that starts at or before key.
	chunk, found = slices.BinarySearchFunc(o.chunks, key, func(c []*store.Item, k string) int { return strings.Compare(c[0].Key, k) })
	if found {
		return chunk, 0, true
	}
	if chunk > 0 {
		chunk--
	}
	if chunk == len(o.chunks) {
		return chunk, 0, false
	}
	at, found = slices.BinarySearchFunc(o.chunks[chunk], key, func(it *store.Item, k string) int { return strings.Compare(it.Key, k) })
	return chunk, at, found
}

// get gives the item at key, or nil.
func (o *ordered) get(key string) *store.Item {
	if c, at, ok := o.find(key); ok {
		return o.chunks[c][at]
	}
	return nil
}

// put adds it, or replaces the item of the same key.
func (o *ordered) put(it *store.Item) {
	c, at, ok := o.find(it.Key)
	if ok {
		o.chunks[c][at] = it
		return
	}
	o.size++
	if c == len(o.chunks) {
		o.chunks = append(o.chunks, []*store.Item{it})
		return
	}
	chunk := slices.Insert(o.chunks[c], at, it)
	o.chunks[c] = chunk
	if len(chunk) > chunkMax {
		half := len(chunk) / 2
		o.chunks = slices.Insert(o.chunks, c+1, slices.Clone(chunk[half:]))
		clear(chunk[half:])
		o.chunks[c] = chunk[:half]
	}
}

// remove takes the item at key out; nothing happens when there is none.
func (o *ordered) remove(key string) {
	c, at, ok := o.find(key)
	if !ok {
		return
	}
	o.size--
	o.chunks[c] = slices.Delete(o.chunks[c], at, at+1)
	if len(o.chunks[c]) == 0 {
		o.chunks = slices.Delete(o.chunks, c, c+1)
	}
}

// under gives all items whose key starts with prefix, in order.
func (o *ordered) under(prefix string) []store.Item {
	out := []store.Item{}
	c, at, _ := o.find(prefix)
	for ; c < len(o.chunks); c, at = c+1, 0 {
		for _, it := range o.chunks[c][at:] {
			if !strings.HasPrefix(it.Key, prefix) {
				return out
			}
			out = append(out, *it)
		}
	}
	return out
}
