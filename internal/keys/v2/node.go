package v2

import (
	"bytes"
	"encoding/json"
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Node is a file or directory as v2 clients are told of it.
//
// Indexes are revisions of the store. A file's modifiedIndex is its key's mod revision. Its createdIndex is the revision of the last set or
// create (or v3 put), which is the same unless updates and swaps came after it: those write down the older one in the key's detail. Both indexes of a
// directory are the create revision of its marker: neither an update of its TTL nor changes below it move them. A directory without
// a marker has the create revision of the first key below it.
type Node struct {
	Key           string     `json:"key,omitempty"` // empty for the root
	Value         *string    `json:"value,omitempty"`
	Dir           bool       `json:"dir,omitempty"`
	Expiration    *time.Time `json:"expiration,omitempty"`
	TTL           int64      `json:"ttl,omitempty"` // whole seconds left, rounded up
	Nodes         []*Node    `json:"nodes,omitempty"`
	ModifiedIndex uint64     `json:"modifiedIndex,omitempty"`
	CreatedIndex  uint64     `json:"createdIndex,omitempty"`
}

// detail is the value of a side key under sideDetail: what the key itself cannot say. It holds only for the revision of the key that it was
// written with, so a put by a v3 client undoes it.
type detail struct {
	Created int64 `json:"created,omitempty"` // createdIndex of a file; 0: the revision of this write
	Expires int64 `json:"expires,omitempty"` // Unix nanoseconds; 0: never
}

// detailOf reads side, the detail's key, for kv. The zero detail when there is none that holds.
func detailOf(kv, side *mvccpb.KeyValue) (d detail) {
	if kv == nil || side == nil || side.ModRevision != kv.ModRevision {
		return detail{}
	}
	return readDetail(side.Value)
}

// readDetail reads the value of a detail's key: JSON, mostly as this package writes it, which is read without the long way.
func readDetail(text []byte) (d detail) {
	rest := text
	number := func(name string) (n int64) {
		after, ok := bytes.CutPrefix(rest, []byte(name))
		for ok && len(after) > 0 && '0' <= after[0] && after[0] <= '9' && n < math.MaxInt64/10-1 {
			n, after = 10*n+int64(after[0]-'0'), after[1:]
		}
		if n > 0 {
			rest = after
		}
		return n
	}
	if d.Created = number(`{"created":`); d.Created > 0 {
		d.Expires = number(`,"expires":`)
	} else {
		d.Expires = number(`{"expires":`)
	}
	if string(rest) == "}" {
		return d
	}
	d = detail{}
	if json.Unmarshal(text, &d) != nil { // not written by this package
		return detail{}
	}
	return d
}

// fileNode is the node of kv with its detail's key.
func fileNode(p string, kv, side *mvccpb.KeyValue, now time.Time) *Node {
	d, value := detailOf(kv, side), string(kv.Value)
	n := &Node{Key: p, Value: &value, ModifiedIndex: uint64(kv.ModRevision), CreatedIndex: uint64(kv.ModRevision)}
	if d.Created > 0 {
		n.CreatedIndex = uint64(d.Created)
	}
	n.ends(d, now)
	return n
}

// dirNode is the node of a directory with the given marker; marker may be the first key below instead, and side is then nil.
func dirNode(p string, marker, side *mvccpb.KeyValue, now time.Time) *Node {
	if p == "/" {
		return &Node{Dir: true}
	}
	n := &Node{Key: p, Dir: true}
	if marker != nil {
		n.ModifiedIndex, n.CreatedIndex = uint64(marker.CreateRevision), uint64(marker.CreateRevision)
	}
	n.ends(detailOf(marker, side), now)
	return n
}

// ends sets expiration and TTL: the seconds left rounded up, and none once it has passed.
func (n *Node) ends(d detail, now time.Time) {
	if d.Expires == 0 {
		return
	}
	at := time.Unix(0, d.Expires).UTC()
	left := at.Sub(now)
	n.Expiration, n.TTL = &at, int64(left/time.Second)
	if left%time.Second > 0 {
		n.TTL++
	}
}
