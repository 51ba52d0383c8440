package keycmd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
)

// The words for what happens to a key.
const (
	created = "create"
	changed = "change"
	deleted = "delete"
)

// change is what import would do to a key.
type change struct {
	action   string
	key      string
	old, new []byte
	rev      int64 // at which the key was changed last; 0: there is none
}

// shownChange is a change as --json shows it.
type shownChange struct {
	Action string `json:"action"`
	Key    string `json:"key"`
	Old    any    `json:"old,omitempty"`
	New    any    `json:"new,omitempty"`
}

func (c change) shown() shownChange {
	s := shownChange{Action: c.action, Key: c.key}
	if c.action != created {
		s.Old = jsonValue(c.old)
	}
	if c.action != deleted {
		s.New = jsonValue(c.new)
	}
	return s
}

// printChanges shows a person what would change.
func printChanges(w io.Writer, all []change) error {
	for _, c := range all {
		var err error
		switch c.action {
		case created:
			_, err = fmt.Fprintf(w, "+ %s: %s\n", printable([]byte(c.key)), short(c.new))
		case changed:
			_, err = fmt.Fprintf(w, "~ %s: %s -> %s\n", printable([]byte(c.key)), short(c.old), short(c.new))
		case deleted:
			_, err = fmt.Fprintf(w, "- %s: %s\n", printable([]byte(c.key)), short(c.old))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxOps is how many changes one transaction holds, and maxOpBytes how large their values are. etcd allows 128 operations and 1.5 MB.
const (
	maxOps     = 100
	maxOpBytes = 512 << 10
)

// compare finds what must change for the keys to be as wanted, sorted by key.
func (k *keys) compare(ctx context.Context, c *clientv3.Client, want map[string][]byte, o importOptions) ([]change, error) {
	have := map[string]*mvccpb.KeyValue{}
	if o.replace {
		all, _, err := k.fetch(ctx, c, k.scope(k.dir(o.prefix), true), readFlags{})
		if err != nil {
			return nil, err
		}
		for _, kv := range all {
			if !k.marker(kv.Key) {
				have[string(kv.Key)] = kv
			}
		}
	} else if err := k.fetchEach(ctx, c, slices.Sorted(maps.Keys(want)), have); err != nil {
		return nil, err
	}
	var out []change
	for key, value := range want {
		switch kv := have[key]; {
		case kv == nil:
			out = append(out, change{action: created, key: key, new: value})
		case !bytes.Equal(kv.Value, value):
			out = append(out, change{action: changed, key: key, old: kv.Value, new: value, rev: kv.ModRevision})
		}
	}
	for key, kv := range have {
		if _, keep := want[key]; !keep {
			out = append(out, change{action: deleted, key: key, old: kv.Value, rev: kv.ModRevision})
		}
	}
	slices.SortFunc(out, func(a, b change) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
	return out, nil
}

// fetchEach reads single keys, so that a token that opens no more is enough.
func (k *keys) fetchEach(ctx context.Context, c *clientv3.Client, names []string, have map[string]*mvccpb.KeyValue) error {
	for part := range slices.Chunk(names, maxOps) {
		var ops []clientv3.Op
		for _, n := range part {
			ops = append(ops, clientv3.OpGet(n))
		}
		req, cancel := k.bounded(ctx)
		r, err := c.Txn(req).Then(ops...).Commit()
		cancel()
		if err != nil {
			return problem(ctx, err)
		}
		for _, one := range r.Responses {
			for _, kv := range one.GetResponseRange().GetKvs() {
				have[string(kv.Key)] = kv
			}
		}
	}
	return nil
}

// apply makes the changes, each only if the key is still as it was compared; it gives how many were made.
func (k *keys) apply(ctx context.Context, c *clientv3.Client, all []change) (done int, err error) {
	for done < len(all) {
		n, size := 0, 0
		var conds []clientv3.Cmp
		var ops []clientv3.Op
		for _, ch := range all[done:] {
			size += len(ch.key) + len(ch.new)
			if n == maxOps || n > 0 && size > maxOpBytes {
				break
			}
			n++
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(ch.key), "=", ch.rev))
			if ch.action == deleted {
				ops = append(ops, clientv3.OpDelete(ch.key))
			} else {
				ops = append(ops, clientv3.OpPut(ch.key, string(ch.new)))
			}
		}
		req, cancel := k.bounded(ctx)
		r, err := c.Txn(req).If(conds...).Then(ops...).Commit()
		cancel()
		if err != nil {
			return done, problem(ctx, err)
		}
		if !r.Succeeded {
			return done, fault.WithHint(fault.New(fault.Conflict, "somebody else changed one of %s to %s in between", all[done].key, all[done+n-1].key), "import again")
		}
		done += n
	}
	return done, nil
}
