package v2

import (
	"encoding/json"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// plan is one guarded transaction that carries a request out.
type plan struct {
	record record
	guards []clientv3.Cmp
	steps  []step
}

// step changes one key, or removes a range.
type step struct {
	key   string
	value []byte // what is put; nil: the key is removed
	end   string // the range's end; not empty only for removals, of which nothing is told
	lease clientv3.LeaseID
	ask   bool             // have the store tell what was there
	old   *mvccpb.KeyValue // what is known to have been there, where it is not asked
}

// Guards on one key. A revision of 0 means that the key is not there.
func absent(key string) clientv3.Cmp  { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }
func present(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), ">", 0) }
func same(key string, kv *mvccpb.KeyValue) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", kv.GetModRevision())
}

// childless guards that nothing lies below a directory.
func childless(dir string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(below(dir)), "=", 0).WithRange(pastDir(dir))
}

// guard adds conditions.
func (p *plan) guard(c ...clientv3.Cmp) { p.guards = append(p.guards, c...) }

// noDir guards that the node is no directory. The marker comes first: where it stands the range, which may be long, is not looked at.
func (p *plan) noDir(key string) { p.guard(absent(dirKey(key)), childless(key)) }

// putFile writes a file and its detail, which it removes when there is nothing to say.
func (p *plan) putFile(value string, d detail, lease clientv3.LeaseID) {
	p.steps = append(p.steps, step{key: p.record.Key, value: []byte(value), lease: lease, ask: true})
	p.putDetail(p.record.Key, d)
}

// replaceFile is putFile for a file that is known, and guarded to be so still: nobody has to ask what was there, and no detail is removed that
// there is not.
func (p *plan) replaceFile(l look, value string, d detail, lease clientv3.LeaseID) {
	p.guard(same(l.key, l.file))
	p.steps = append(p.steps, step{key: l.key, value: []byte(value), lease: lease, old: l.file})
	if l.fileSide != nil || d != (detail{}) {
		p.putDetail(l.key, d)
		s := &p.steps[len(p.steps)-1]
		s.ask, s.old = false, l.fileSide
	}
}

// putDir writes a directory's marker and its detail.
func (p *plan) putDir(key string, d detail, lease clientv3.LeaseID) {
	p.steps = append(p.steps, step{key: dirKey(key), value: []byte{}, lease: lease, ask: true})
	p.putDetail(dirKey(key), d)
}

// putDetail writes a key's detail. It has no lease, so that it outlives the key's: see look.ended.
func (p *plan) putDetail(key string, d detail) {
	s := step{key: sideDetail + key, ask: true}
	if d != (detail{}) {
		s.value, _ = json.Marshal(d) // of two numbers: cannot fail
	}
	p.steps = append(p.steps, s)
}

// dropFile removes a file.
func (p *plan) dropFile(key string) {
	p.steps = append(p.steps, step{key: key, ask: true}, step{key: sideDetail + key, ask: true})
}

// dropDir removes a directory with all below; marker and its detail are known.
func (p *plan) dropDir(key string, marker, detail *mvccpb.KeyValue) {
	d := dirKey(key)
	p.steps = append(p.steps,
		step{key: d, old: marker}, step{key: sideDetail + d, old: detail}, step{key: sideNext + d},
		step{key: below(key), end: pastDir(key)},
		step{key: sideDetail + below(key), end: clientv3.GetPrefixRangeEnd(sideDetail + d)},
		step{key: sideNext + below(key), end: clientv3.GetPrefixRangeEnd(sideNext + d)},
	)
}

// makeDirs makes the directories of up that have no marker, and guards that those which have one keep it.
func (p *plan) makeDirs(up []rung) {
	for i, r := range up {
		switch {
		case r.dir == nil:
			p.guard(absent(r.key), absent(dirKey(r.key)))
			p.steps = append(p.steps, step{key: dirKey(r.key), value: []byte{}})
		case i == len(up)-1 || up[i+1].dir == nil:
			// The innermost is enough: a directory goes only together with all below.
			p.guard(present(dirKey(r.key)))
		}
	}
}

// ops gives the transaction's operations. The record is the last.
func (p *plan) ops() []clientv3.Op {
	ops := make([]clientv3.Op, 0, len(p.steps)+1)
	for _, s := range p.steps {
		var opts []clientv3.OpOption
		if s.ask {
			opts = append(opts, clientv3.WithPrevKV())
		}
		switch {
		case s.value != nil:
			if s.lease != 0 {
				opts = append(opts, clientv3.WithLease(s.lease))
			}
			ops = append(ops, clientv3.OpPut(s.key, string(s.value), opts...))
		case s.end != "":
			ops = append(ops, clientv3.OpDelete(s.key, clientv3.WithRange(s.end)))
		default:
			ops = append(ops, clientv3.OpDelete(s.key, opts...))
		}
	}
	text, _ := json.Marshal(p.record) // strings and numbers: cannot fail
	return append(ops, clientv3.OpPut(sideLast, string(text)))
}

// did gives what the plan's transaction changed, as far as it is known.
func (p *plan) did(resp *clientv3.TxnResponse) changes {
	rev, c := resp.Header.Revision, make(changes, len(p.steps))
	for i, s := range p.steps {
		if s.end != "" {
			continue
		}
		ch := change{old: s.old}
		if s.ask {
			ch.old = before(resp.Responses[i])
		}
		if s.value != nil {
			ch.now = &mvccpb.KeyValue{Key: []byte(s.key), Value: s.value, ModRevision: rev, CreateRevision: rev, Lease: int64(s.lease)}
			ch.now.Version = ch.old.GetVersion() + 1
			if ch.old != nil {
				ch.now.CreateRevision = ch.old.CreateRevision
			}
		}
		c[s.key] = ch
	}
	return c
}
