package v2

import (
	"container/heap"
	"sync"
)

// queue is the v3 keys that expire, by time.
type queue struct {
	mu    sync.Mutex // guards the fields below
	items []*due
	byKey map[string]*due
	moved chan struct{} // holds one token when the first may have changed
}

// due is one key that expires.
type due struct {
	key string
	at  int64 // Unix nanoseconds
	pos int   // in the heap
}

func newQueue() *queue { return &queue{byKey: map[string]*due{}, moved: make(chan struct{}, 1)} }

// set says when key expires; 0: never.
func (q *queue) set(key string, at int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.byKey[key]
	switch {
	case d == nil && at == 0:
		return
	case d == nil:
		d = &due{key: key, at: at}
		q.byKey[key] = d
		heap.Push((*dues)(q), d)
	case at == 0:
		heap.Remove((*dues)(q), d.pos)
		delete(q.byKey, key)
	default:
		d.at = at
		heap.Fix((*dues)(q), d.pos)
	}
	select {
	case q.moved <- struct{}{}:
	default:
	}
}

// first gives what expires next.
func (q *queue) first() (key string, at int64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return "", 0, false
	}
	return q.items[0].key, q.items[0].at, true
}

// dues is the queue as a heap.
type dues queue

func (d *dues) Len() int           { return len(d.items) }
func (d *dues) Less(i, j int) bool { return d.items[i].at < d.items[j].at }
func (d *dues) Swap(i, j int) {
	d.items[i], d.items[j] = d.items[j], d.items[i]
	d.items[i].pos, d.items[j].pos = i, j
}
func (d *dues) Push(x any) {
	x.(*due).pos = len(d.items)
	d.items = append(d.items, x.(*due))
}
func (d *dues) Pop() any {
	last := d.items[len(d.items)-1]
	d.items = d.items[:len(d.items)-1]
	return last
}
