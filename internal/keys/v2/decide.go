package v2

import (
	"fmt"
	"net/http"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// write is a request that changes something, with what is settled before the store is looked at.
type write struct {
	request
	ends  time.Time        // when what is written expires; zero: never
	lease clientv3.LeaseID // for what expires; 0: none
	after int64            // the highest revision known: in-order names come after it
	bump  int64            // added to in-order names: how often a name was found taken
}

// permanentBefore: what was to expire before it never does. Source: etcd, for times that went through 32 bits somewhere.
var permanentBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// detail says what is written down besides the value. created is the createdIndex to keep; 0: this write's own.
func (w write) detail(created int64) detail {
	if w.ends.IsZero() || w.action() != actUpdate && w.action() != actSwap && w.ends.Before(permanentBefore) {
		return detail{Created: created}
	}
	return detail{Created: created, Expires: w.ends.UnixNano()}
}

func (w write) plan() *plan {
	return &plan{record: record{Action: w.action(), Key: w.key, Refresh: w.refresh && w.action() != actCreate}}
}

// guess plans without having looked, for what mostly meets no obstacle. nil where looking first is better.
func (w write) guess() *plan {
	p, up := w.plan(), above(w.key)
	act := w.action()
	switch {
	case w.key == "/" || w.refresh || w.method == http.MethodPost || w.dir && act == actSet:
		return nil
	case act == actDelete:
		p.guard(present(w.key))
		p.dropFile(w.key)
		return p
	case act != actSet && act != actCreate:
		return nil
	}
	if len(up) > 0 {
		p.guard(present(dirKey(up[len(up)-1])))
	}
	p.noDir(w.key)
	if act == actCreate {
		p.guard(absent(w.key))
	}
	if w.dir {
		p.putDir(w.key, w.detail(0), w.lease)
	} else {
		p.putFile(w.value, w.detail(0), w.lease)
	}
	return p
}

// recall plans a write of a file that is known, but may have changed meanwhile. nil where that is no use, or where it would fail.
func (w write) recall(file, side *mvccpb.KeyValue) *plan {
	l := look{key: w.key, file: file, fileSide: side}
	switch w.action() {
	case actUpdate, actSwap, actDrop:
		p, _ := w.decide(l)
		return p
	case actSet:
		if w.refresh || w.dir {
			return nil
		}
		p := w.plan()
		if up := above(w.key); len(up) > 0 {
			p.guard(present(dirKey(up[len(up)-1])))
		}
		p.replaceFile(l, w.value, w.detail(0), w.lease)
		return p
	}
	return nil
}

// decide says what the request means for what was seen: a plan, or why not.
func (w write) decide(l look) (*plan, *problem) {
	switch w.action() {
	case actCreate:
		if w.method == http.MethodPost {
			return w.append(l)
		}
		return w.create(l)
	case actSet:
		return w.set(l)
	case actUpdate:
		return w.update(l)
	case actSwap:
		return w.swap(l)
	case actDrop:
		return w.drop(l)
	}
	return w.remove(l)
}

func (w write) readOnly(l look) *problem {
	if w.key == "/" {
		return refuse(rootReadOnly, l.rev, "/")
	}
	return nil
}

// fresh plans a node that replaces nothing but a file.
func (w write) fresh(l look, value string) *plan {
	p := w.plan()
	p.makeDirs(l.up)
	if l.file != nil && !w.dir {
		p.replaceFile(l, value, w.detail(0), w.lease)
		return p
	}
	p.guard(same(l.key, l.file))
	if l.file == nil {
		p.noDir(l.key)
	}
	if !w.dir {
		p.putFile(value, w.detail(0), w.lease)
		return p
	}
	if l.file != nil {
		p.dropFile(l.key)
	}
	p.putDir(l.key, w.detail(0), w.lease)
	return p
}

func (w write) create(l look) (*plan, *problem) {
	switch {
	case w.key == "/":
		return nil, w.readOnly(l)
	case l.blocked() != nil:
		return nil, l.blocked()
	case l.file != nil || l.isDir():
		return nil, refuse(nodeExist, l.rev, l.key)
	}
	return w.fresh(l, w.value), nil
}

func (w write) set(l look) (*plan, *problem) {
	value := w.value
	switch {
	case w.key == "/":
		return nil, w.readOnly(l)
	case l.file == nil && l.blocked() != nil:
		return nil, l.blocked()
	case w.refresh && l.missing() != nil:
		return nil, l.missing()
	case l.isDir():
		return nil, refuse(notFile, l.rev, l.key)
	case w.refresh:
		value = string(l.file.Value)
	}
	return w.fresh(l, value), nil
}

// append makes the next in-order node under a directory. The name is the index that is expected for the write; what was given there before
// is remembered in a side key, so names of one directory rise in the order of the writes whoever else writes at the time.
func (w write) append(l look) (*plan, *problem) {
	if p := l.blocked(); p != nil {
		return nil, p
	}
	if l.file != nil {
		return nil, refuse(notDir, l.rev, l.key)
	}
	n := max(w.after, l.rev) + 1
	if l.next != nil {
		var last int64
		if _, err := fmt.Sscanf(string(l.next.Value), "%d", &last); err == nil {
			n = max(n, last+1)
		}
	}
	p := w.plan()
	p.record.Key = clean(l.key + "/" + fmt.Sprintf("%020d", n+w.bump))
	up := l.up
	if l.key != "/" {
		up = append(up[:len(up):len(up)], rung{key: l.key, dir: l.dir})
	}
	p.makeDirs(up)
	next := sideNext + dirKey(l.key)
	p.guard(same(next, l.next), absent(p.record.Key))
	p.noDir(p.record.Key)
	if w.dir {
		p.putDir(p.record.Key, w.detail(0), w.lease)
	} else {
		p.putFile(w.value, w.detail(0), w.lease)
	}
	p.steps = append(p.steps, step{key: next, value: fmt.Append(nil, n+w.bump)})
	return p, nil
}

func (w write) update(l look) (*plan, *problem) {
	switch {
	case w.key == "/":
		return nil, w.readOnly(l)
	case l.missing() != nil:
		return nil, l.missing()
	case l.isDir() && w.value != "":
		return nil, refuse(notFile, l.rev, l.key)
	case l.isDir():
		p := w.plan()
		p.guard(same(dirKey(l.key), l.dir), absent(l.key))
		p.putDir(l.key, w.detail(0), w.lease)
		return p, nil
	}
	return w.rewrite(l), nil
}

// rewrite plans a write that keeps the file's createdIndex.
func (w write) rewrite(l look) *plan {
	value := w.value
	if w.refresh {
		value = string(l.file.Value)
	}
	created := detailOf(l.file, l.fileSide).Created
	if created == 0 {
		created = l.file.ModRevision
	}
	p := w.plan()
	p.replaceFile(l, value, w.detail(created), w.lease)
	return p
}

func (w write) swap(l look) (*plan, *problem) {
	if w.key == "/" {
		return nil, w.readOnly(l)
	}
	if p := w.compare(l); p != nil {
		return nil, p
	}
	return w.rewrite(l), nil
}

func (w write) drop(l look) (*plan, *problem) {
	if w.key == "/" {
		return nil, refuse(notFile, l.rev, "")
	}
	if p := w.compare(l); p != nil {
		return nil, p
	}
	p := w.plan()
	p.guard(same(l.key, l.file))
	p.dropFile(l.key)
	return p, nil
}

// compare checks prevValue and prevIndex against a file.
func (w write) compare(l look) *problem {
	if p := l.missing(); p != nil {
		return p
	}
	if l.isDir() {
		return refuse(notFile, l.rev, l.key)
	}
	is, index := string(l.file.Value), uint64(l.file.ModRevision)
	byValue, byIndex := fmt.Sprintf("[%v != %v]", w.prevValue, is), fmt.Sprintf("[%v != %v]", w.prevIndex, index)
	badValue, badIndex := w.prevValue != "" && w.prevValue != is, w.prevIndex != 0 && w.prevIndex != index
	switch {
	case badValue && badIndex:
		return refuse(testFailed, l.rev, byValue+" "+byIndex)
	case badValue:
		return refuse(testFailed, l.rev, byValue)
	case badIndex:
		return refuse(testFailed, l.rev, byIndex)
	}
	return nil
}

func (w write) remove(l look) (*plan, *problem) {
	if w.key == "/" {
		return nil, w.readOnly(l)
	}
	if p := l.missing(); p != nil {
		return nil, p
	}
	p := w.plan()
	switch {
	case l.file != nil:
		p.guard(same(l.key, l.file))
		p.dropFile(l.key)
		return p, nil
	case !w.dir && !w.recursive:
		return nil, refuse(notFile, l.rev, l.key)
	case l.first != nil && !w.recursive:
		return nil, refuse(dirNotEmpty, l.rev, l.key)
	}
	return w.removeDir(p, l), nil
}

// removeDir plans the end of a directory and all below it.
func (w write) removeDir(p *plan, l look) *plan {
	p.guard(same(dirKey(l.key), l.dir), absent(l.key))
	if l.dir == nil {
		p.record.Created = l.first.CreateRevision
	}
	if !w.recursive {
		p.guard(childless(l.key))
	}
	p.dropDir(l.key, l.dir, l.dirSide)
	return p
}
