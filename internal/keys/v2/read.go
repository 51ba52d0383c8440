package v2

import (
	"context"
	"errors"
	"sort"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// page is how many keys are asked for at once. A listing that does not go into directories asks anew after each page, from behind the directory that it ended in.
const page = 2000

// errTooLong is said of a listing above Options.MaxList.
var errTooLong = errors.New("the listing is too large: ask for a directory further down, or use the v3 API, which gives pages")

// get answers a read. local allows an answer that is not the newest.
func (a *API) get(ctx context.Context, q request, local bool) (*Event, look, *problem) {
	l, err := a.glance(ctx, q.key, local)
	if err == nil && l.file == nil {
		l, err = a.look(ctx, q.key, local, false)
	}
	if err != nil {
		return nil, l, failed(err)
	}
	if bad := l.missing(); bad != nil {
		return nil, l, bad
	}
	now := time.Now()
	if l.file != nil {
		return &Event{Action: actGet, Node: fileNode(q.key, l.file, l.fileSide, now)}, l, nil
	}
	marker := l.dir
	if marker == nil {
		marker = l.first
	}
	n := dirNode(q.key, marker, l.dirSide, now)
	if err := a.list(ctx, n, q, l.rev, now); err != nil {
		return nil, l, failed(err)
	}
	return &Event{Action: actGet, Node: n}, l, nil
}

// glance looks for a file only, not at what is above or below it: that is enough for most reads. Mostly the file's detail is known already, so
// that is asked for in a second question.
func (a *API) glance(ctx context.Context, key string, local bool) (look, error) {
	if key == "/" {
		return look{key: key}, nil
	}
	var opts []clientv3.OpOption
	if local {
		opts = []clientv3.OpOption{clientv3.WithSerializable()}
	}
	resp, err := a.kv.Get(ctx, key, opts...)
	if err != nil {
		return look{}, err
	}
	a.note(resp.Header)
	l := look{key: key, rev: resp.Header.Revision, term: resp.Header.RaftTerm}
	if len(resp.Kvs) == 0 {
		return l, nil
	}
	l.file = resp.Kvs[0]
	if side, ok := a.recent.detail(key, l.file); ok {
		l.fileSide = side
		return l, nil
	}
	return a.glanceAll(ctx, key, opts)
}

// glanceAll looks for a file and its detail.
func (a *API) glanceAll(ctx context.Context, key string, opts []clientv3.OpOption) (look, error) {
	resp, err := a.kv.Txn(ctx).Then(clientv3.OpGet(key, opts...), clientv3.OpGet(sideDetail+key, opts...)).Commit()
	if err != nil {
		return look{}, err
	}
	a.note(resp.Header)
	l := look{key: key, rev: resp.Header.Revision, term: resp.Header.RaftTerm, file: kvAt(resp, 0), fileSide: kvAt(resp, 1)}
	a.recent.saw(key, l.file, l.fileSide)
	return l, nil
}

// list fills in the nodes below root, as they were at rev.
func (a *API) list(ctx context.Context, root *Node, q request, rev int64, now time.Time) error {
	b := branches{root: q.key, deep: q.recursive, nodes: map[string]*Node{q.key: root}, now: now, left: a.o.MaxList}
	details, err := a.details(ctx, q.key, rev)
	if err != nil {
		return err
	}
	for from, end := below(q.key), pastDir(q.key); from != ""; {
		resp, err := a.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(rev), clientv3.WithSerializable())
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if b.add(kv, details[string(kv.Key)]); b.left < 0 {
				return errTooLong
			}
		}
		from = ""
		if resp.More {
			from = b.after(string(resp.Kvs[len(resp.Kvs)-1].Key))
		}
	}
	order(root)
	return nil
}

// details gives the details of the keys below dir, by key.
func (a *API) details(ctx context.Context, dir string, rev int64) (map[string]*mvccpb.KeyValue, error) {
	all, prefix := map[string]*mvccpb.KeyValue{}, sideDetail+dirKey(dir)
	for from := prefix; from != ""; {
		resp, err := a.kv.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(page),
			clientv3.WithRev(rev), clientv3.WithSerializable())
		if err != nil {
			return nil, err
		}
		for _, kv := range resp.Kvs {
			all[strings.TrimPrefix(string(kv.Key), sideDetail)] = kv
		}
		from = ""
		if resp.More {
			from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		}
	}
	return all, nil
}

// branches grows the tree of a listing.
type branches struct {
	root  string
	deep  bool             // not only the directory's own children
	nodes map[string]*Node // by name
	now   time.Time
	left  int // bytes that may still come
}

// add hangs one key into the tree, unless it is hidden.
func (b *branches) add(kv, side *mvccpb.KeyValue) {
	p, marker, ok := nodeOf(string(kv.Key))
	if !ok || hidden(b.root, p) {
		return
	}
	// What is between the root and the node: a directory, even where it has no marker. A file of that name hides what is below it.
	parent := b.nodes[b.root]
	for _, d := range append(above(p), p) {
		if len(d) <= len(b.root) && b.root != "/" {
			continue
		}
		n := b.nodes[d]
		if n == nil {
			n = b.node(d, p, marker, kv, side)
			b.nodes[d] = n
			parent.Nodes = append(parent.Nodes, n)
		}
		if n.Value != nil || !b.deep {
			return
		}
		parent = n
	}
}

// node makes the node of name d for the key value of p, which is d or lies below it.
func (b *branches) node(d, p string, marker bool, kv, side *mvccpb.KeyValue) *Node {
	b.left -= len(d) + 100
	switch {
	case d != p:
		return dirNode(d, kv, nil, b.now)
	case marker:
		return dirNode(d, kv, side, b.now)
	}
	b.left -= len(kv.Value)
	return fileNode(d, kv, side, b.now)
}

// after gives where the listing goes on behind the key that a page ended with.
func (b *branches) after(last string) string {
	if !b.deep {
		rest := last[len(dirKey(b.root)):]
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			return pastDir(last[:len(last)-len(rest)+i])
		}
	}
	return last + "\x00"
}

// order sorts by name on every level. etcd does that only when asked; an order is also an answer to who did not ask.
func order(n *Node) {
	sort.Slice(n.Nodes, func(i, j int) bool { return n.Nodes[i].Key < n.Nodes[j].Key })
	for _, c := range n.Nodes {
		order(c)
	}
}
