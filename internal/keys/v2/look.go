package v2

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// look is what the store holds, at one revision, of all that decides about a node.
type look struct {
	key  string
	rev  int64
	term uint64
	up   []rung // directories above, outermost first

	file, fileSide *mvccpb.KeyValue // the node as a file
	dir, dirSide   *mvccpb.KeyValue // its marker as a directory
	first          *mvccpb.KeyValue // the first key below; asked for only where there is no marker, or whether there are children matters
	next           *mvccpb.KeyValue // the highest in-order name given in it
}

// rung is one directory above.
type rung struct {
	key       string
	file, dir *mvccpb.KeyValue // without values
	below     bool             // a directory without a marker
}

func (r rung) there() bool { return r.dir != nil || r.below }

// isDir says whether the node is a directory. What is both is a file; only v3 clients can make that.
func (l look) isDir() bool {
	return l.file == nil && (l.dir != nil || l.first != nil || l.key == "/")
}

// maxDepth is how many names a key may have: a look asks two keys for each, and etcd takes 128 operations in a transaction.
const maxDepth = 50

// lookOps asks for what stands at known keys.
func lookOps(key string) []clientv3.Op {
	ops := []clientv3.Op{
		clientv3.OpGet(key), clientv3.OpGet(sideDetail + key),
		clientv3.OpGet(dirKey(key)), clientv3.OpGet(sideDetail + dirKey(key)), clientv3.OpGet(sideNext + dirKey(key)),
	}
	for _, d := range above(key) {
		ops = append(ops, clientv3.OpGet(d, clientv3.WithKeysOnly()), clientv3.OpGet(dirKey(d), clientv3.WithKeysOnly()))
	}
	return ops
}

// kvAt gives what operation i of a transaction, which asked for one key, found.
func kvAt(resp *clientv3.TxnResponse, i int) *mvccpb.KeyValue {
	if kvs := resp.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
		return kvs[0]
	}
	return nil
}

// looked makes a look from the answers to lookOps.
func looked(key string, resp *clientv3.TxnResponse) look {
	at := func(i int) *mvccpb.KeyValue { return kvAt(resp, i) }
	l := look{key: key, rev: resp.Header.Revision, term: resp.Header.RaftTerm}
	l.file, l.fileSide, l.dir, l.dirSide, l.next = at(0), at(1), at(2), at(3), at(4)
	if key == "/" {
		l.file, l.fileSide = nil, nil
	}
	for i, d := range above(key) {
		l.up = append(l.up, rung{key: d, file: at(5 + 2*i), dir: at(6 + 2*i)})
	}
	return l
}

// look asks the store; local allows an answer that is not the newest. children asks whether a directory has any.
func (a *API) look(ctx context.Context, key string, local, children bool) (look, error) {
	ops := lookOps(key)
	if local {
		for i := range ops {
			clientv3.WithSerializable()(&ops[i])
		}
	}
	resp, err := a.kv.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return look{}, err
	}
	a.note(resp.Header)
	l := looked(key, resp)
	return l, a.lookBelow(ctx, &l, children)
}

// lookBelow asks, at the look's own revision, whether directories that have no marker are there because of keys below them. It is a second
// question because etcd counts all keys of a range even when asked for the first only, and most directories have markers.
func (a *API) lookBelow(ctx context.Context, l *look, children bool) error {
	for i, r := range l.up {
		if r.dir != nil || r.file != nil {
			continue
		}
		kv, err := a.firstBelow(ctx, r.key, l.rev)
		if err != nil {
			return err
		}
		if l.up[i].below = kv != nil; kv == nil {
			return nil // nothing can be further down
		}
	}
	if l.file != nil || l.dir != nil && !children {
		return nil
	}
	kv, err := a.firstBelow(ctx, l.key, l.rev)
	l.first = kv
	return err
}

// firstBelow gives the first key under a directory, without its value, as of a revision; nil when there is none.
func (a *API) firstBelow(ctx context.Context, dir string, rev int64) (*mvccpb.KeyValue, error) {
	resp, err := a.kv.Get(ctx, below(dir), clientv3.WithRange(pastDir(dir)), clientv3.WithLimit(1), clientv3.WithKeysOnly(),
		clientv3.WithRev(rev), clientv3.WithSerializable())
	if err != nil || len(resp.Kvs) == 0 {
		return nil, err
	}
	return resp.Kvs[0], nil
}

// missing says why there is no node: a file stands in the way, or a part of the path is not there. nil when there is one.
func (l look) missing() *problem {
	if l.file != nil || l.isDir() {
		return nil
	}
	if p := l.blocked(); p != nil {
		return p
	}
	for _, r := range l.up {
		if !r.there() {
			return refuse(keyNotFound, l.rev, r.key)
		}
	}
	return refuse(keyNotFound, l.rev, l.key)
}

// blocked says which file stands where a directory would have to be.
func (l look) blocked() *problem {
	for _, r := range l.up {
		if r.file != nil {
			return refuse(notDir, l.rev, r.key)
		}
	}
	return nil
}
