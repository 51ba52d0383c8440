package v2

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// The actions.
const (
	actGet    = "get"
	actSet    = "set"
	actCreate = "create"
	actUpdate = "update"
	actSwap   = "compareAndSwap"
	actDelete = "delete"
	actDrop   = "compareAndDelete"
	actExpire = "expire"
)

// Event is one change, or the answer to a get.
type Event struct {
	Action   string `json:"action"`
	Node     *Node  `json:"node,omitempty"`
	PrevNode *Node  `json:"prevNode,omitempty"`

	index   uint64   // the revision it happened at
	refresh bool     // only a TTL was renewed: watches are not told
	gone    []string // nodes that went with a directory
}

// record is what a write says about itself, under sideLast.
type record struct {
	Action  string `json:"action"`
	Key     string `json:"key"`
	Refresh bool   `json:"refresh,omitempty"`
	Created int64  `json:"created,omitempty"` // createdIndex of a removed directory that had no marker
}

// change is what one transaction did to one key.
type change struct {
	now, old *mvccpb.KeyValue // nil: not there
}

// changes are those of one revision, by v3 key.
type changes map[string]change

// told makes the event of a v2 write out of its record and its changes, the same for who wrote it and for who watches it.
func told(r record, rev int64, c changes, at time.Time) *Event {
	ev := &Event{Action: r.Action, index: uint64(rev), refresh: r.Refresh}
	file, fileSide := c[r.Key], c[sideDetail+r.Key]
	dir, dirSide := c[dirKey(r.Key)], c[sideDetail+dirKey(r.Key)]
	if file.old != nil {
		ev.PrevNode = fileNode(r.Key, file.old, fileSide.old, at)
	}
	switch {
	case file.now != nil:
		ev.Node = fileNode(r.Key, file.now, fileSide.now, at)
	case dir.now != nil:
		ev.Node = dirNode(r.Key, dir.now, dirSide.now, at)
		ev.Node.ModifiedIndex = uint64(rev)
		if r.Action == actUpdate && dir.old != nil {
			ev.PrevNode = dirNode(r.Key, dir.old, dirSide.old, at)
		}
	default:
		if file.old == nil {
			ev.PrevNode = dirNode(r.Key, dir.old, dirSide.old, at)
			if r.Created != 0 {
				ev.PrevNode.CreatedIndex, ev.PrevNode.ModifiedIndex = uint64(r.Created), uint64(r.Created)
			}
			ev.gone = gone(r.Key, c)
		}
		ev.Node = &Node{Key: r.Key, Dir: file.old == nil, CreatedIndex: ev.PrevNode.CreatedIndex, ModifiedIndex: uint64(rev)}
	}
	return ev
}

// gone gives the nodes below dir that are there no more.
func gone(dir string, c changes) (all []string) {
	for key, ch := range c {
		if p, _, ok := nodeOf(key); ok && ch.now == nil && strings.HasPrefix(key, dirKey(dir)) && p != dir {
			all = append(all, p)
		}
	}
	return all
}

// foreign makes the events of a transaction that v2 did not write: puts and deletes of v3 clients, and leases that ended.
func foreign(rev int64, c changes, at time.Time) (all []*Event) {
	for _, key := range slices.Sorted(maps.Keys(c)) {
		ch := c[key]
		p, marker, ok := nodeOf(key)
		if !ok || ch.now == nil && ch.old == nil {
			continue // of a deleted key whose past is compacted nothing can be told
		}
		r, side := record{Action: actSet, Key: p}, c[sideDetail+key]
		if ch.now == nil {
			r.Action = actDelete
			if d := detailOf(ch.old, side.old); ch.old.Lease != 0 && (d.Expires == 0 || d.Expires <= at.UnixNano()) {
				r.Action = actExpire
			}
		}
		if marker && ch.now != nil && ch.old != nil {
			continue // a marker written again changes nothing for v2
		}
		all = append(all, told(r, rev, changes{key: ch, sideDetail + key: side}, at))
	}
	return all
}

// eventsOf makes events of one revision's changes. Which they are, and their order, does not depend on how the store tells them.
func eventsOf(rev int64, c changes, at time.Time) []*Event {
	if last := c[sideLast].now; last != nil {
		var r record
		if json.Unmarshal(last.Value, &r) == nil && r.complete(c) {
			return []*Event{told(r, rev, c, at)}
		}
	}
	return foreign(rev, c, at)
}

// complete says whether the changes can be those that the record speaks of; a v3 client may have written anything.
func (r record) complete(c changes) bool {
	file, dir := c[r.Key], c[dirKey(r.Key)]
	switch r.Action {
	case actSet, actCreate, actUpdate, actSwap:
		return file.now != nil || dir.now != nil
	case actDelete, actDrop, actExpire:
		return file.old != nil || dir.old != nil || r.Created != 0
	}
	return false
}
