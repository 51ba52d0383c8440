package store

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"flota/internal/fault"
)

// Table is the typed view of all keys under one prefix; values are JSON. The zero value is unusable: see New.
type Table[T any] struct {
	kv     KV
	prefix string
}

// Entry is one stored value with its key (below the table's prefix) and revisions.
type Entry[T any] struct {
	Key     string
	Value   T
	Rev     int64 // revision that last changed it
	Created int64 // revision that made it
	Lease   LeaseID
}

// Prefix is where the table's keys lie.
func (t Table[T]) Prefix() string { return t.prefix }

// Match gives the part of a full key below the table's prefix; ok is false if the key is not of this table.
func (t Table[T]) Match(key string) (sub string, ok bool) { return strings.CutPrefix(key, t.prefix) }

// Decode reads an item of this table. An unreadable value is fault.Internal naming the key.
func (t Table[T]) Decode(it Item) (Entry[T], error) {
	e := Entry[T]{Key: strings.TrimPrefix(it.Key, t.prefix), Rev: it.Rev, Created: it.Created, Lease: it.Lease}
	if err := json.Unmarshal(it.Value, &e.Value); err != nil {
		return e, fault.Wrap(fault.Internal, err, "read %s", it.Key)
	}
	return e, nil
}

// Get gives one entry; ok is false when there is none.
func (t Table[T]) Get(ctx context.Context, key string, r Read) (e Entry[T], ok bool, err error) {
	it, ok, err := t.kv.Get(ctx, t.prefix+key, r)
	if err != nil || !ok {
		return e, false, err
	}
	e, err = t.Decode(it)
	return e, err == nil, err
}

// List gives all entries whose key starts with sub ("" for all), sorted by key, and the revision they are true of.
// Values that cannot be read are left out, so that one broken key never stops the cluster.
func (t Table[T]) List(ctx context.Context, sub string, r Read) ([]Entry[T], int64, error) {
	items, rev, err := t.kv.List(ctx, t.prefix+sub, r)
	if err != nil {
		return nil, 0, err
	}
	out := make([]Entry[T], 0, len(items))
	for _, it := range items {
		if e, err := t.Decode(it); err == nil {
			out = append(out, e)
		}
	}
	return out, rev, nil
}

// Create stores v at a key that must not exist: fault.Exists otherwise. Repeating an acknowledged Create gives Exists too.
func (t Table[T]) Create(ctx context.Context, key string, v T) error {
	_, ok, err := t.kv.Commit(ctx, Txn{If: []Cond{t.IfAbsent(key)}, Then: []Op{t.PutOp(key, v, 0)}})
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Exists, "%s exists already", key)
	}
	return nil
}

// Put stores v whatever was there, under the lease if it is not 0.
func (t Table[T]) Put(ctx context.Context, key string, v T, lease LeaseID) error {
	_, _, err := t.kv.Commit(ctx, Txn{Then: []Op{t.PutOp(key, v, lease)}})
	return err
}

// Update reads the entry, lets change alter the value, and writes it back if nobody else did in between; it tries
// again until ctx ends otherwise. fault.NotFound if there is none. An error of change is returned as it is and
// nothing is written; ErrNoChange from change means that all is well as it is.
func (t Table[T]) Update(ctx context.Context, key string, change func(*T) error) (T, error) {
	for {
		e, ok, err := t.Get(ctx, key, Read{})
		if err != nil {
			return e.Value, err
		}
		if !ok {
			return e.Value, fault.New(fault.NotFound, "%s does not exist", key)
		}
		if err := change(&e.Value); errors.Is(err, ErrNoChange) {
			return e.Value, nil
		} else if err != nil {
			return e.Value, err
		}
		_, done, err := t.kv.Commit(ctx, Txn{If: []Cond{t.IfRev(key, e.Rev)}, Then: []Op{t.PutOp(key, e.Value, e.Lease)}})
		if err != nil || done {
			return e.Value, err
		}
		if err := ctx.Err(); err != nil {
			return e.Value, fault.Wrap(fault.Conflict, err, "update %s: changed by others again and again", key)
		}
	}
}

// ErrNoChange is what Update's function returns when the value is as wanted.
var ErrNoChange = fault.New(fault.Conflict, "nothing to change")

// Delete removes the key and says whether it was there.
func (t Table[T]) Delete(ctx context.Context, key string) (bool, error) {
	for {
		it, ok, err := t.kv.Get(ctx, t.prefix+key, Read{})
		if err != nil || !ok {
			return false, err
		}
		_, done, err := t.kv.Commit(ctx, Txn{If: []Cond{t.IfRev(key, it.Rev)}, Then: []Op{t.DeleteOp(key)}})
		if err != nil || done {
			return done, err
		}
	}
}

// PutOp is the operation that stores v at key.
func (t Table[T]) PutOp(key string, v T, lease LeaseID) Op {
	b, err := json.Marshal(v)
	if err != nil {
		panic("store: a stored type must marshal: " + err.Error())
	}
	return Op{Key: t.prefix + key, Value: b, Lease: lease}
}

// DeleteOp is the operation that removes key.
func (t Table[T]) DeleteOp(key string) Op { return Op{Key: t.prefix + key} }

// IfRev holds when key was last changed at rev; rev 0: when it does not exist.
func (t Table[T]) IfRev(key string, rev int64) Cond { return Cond{Key: t.prefix + key, Rev: rev} }

// IfAbsent holds when key does not exist.
func (t Table[T]) IfAbsent(key string) Cond { return Cond{Key: t.prefix + key} }
