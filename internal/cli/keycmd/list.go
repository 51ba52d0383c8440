package keycmd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
)

// newLs is `flota key ls`.
func (k *keys) newLs() *cobra.Command {
	var f readFlags
	var deep, all bool
	c := &cobra.Command{
		Use: "ls [KEY]", Short: "List the keys directly below a key, or with -r all of them",
		Long: `List the keys directly below a key ("/" without one); what has keys below it ends with "/". Names that begin with "_" are hidden, as v2
hides them, unless --all is given. With --raw list all keys that begin with KEY.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, kvs, err := k.under(cmd.Context(), args, f, all, clientv3.WithKeysOnly())
			if err != nil {
				return err
			}
			names := []string{}
			for _, kv := range kvs {
				name := string(kv.Key)
				if !deep && !k.raw {
					name = child(dir, name)
				} else if k.marker(kv.Key) {
					continue
				}
				if name != "" && (len(names) == 0 || names[len(names)-1] != name) {
					names = append(names, name)
				}
			}
			if k.JSON() {
				return k.printJSON(names)
			}
			for _, n := range names {
				if _, err := fmt.Fprintln(k.Out, printable([]byte(n))); err != nil {
					return err
				}
			}
			return nil
		},
	}
	k.readFlags(c, &f)
	c.Flags().BoolVarP(&deep, "recursive", "r", false, "all keys below, not only those directly below")
	c.Flags().BoolVarP(&all, "all", "a", false, `also names that begin with "_"`)
	return c
}

// child is the first step from dir to key, with a "/" after it if it goes on; "" if key is dir itself.
func child(dir, key string) string {
	below := strings.TrimSuffix(dir, "/") + "/"
	rest, ok := strings.CutPrefix(key, below)
	if !ok || rest == "" {
		return ""
	}
	step, _, more := strings.Cut(rest, "/")
	if more {
		step += "/"
	}
	return below + step
}

// under reads what is below the key that args name. fault.NotFound if there is nothing, but for the root.
func (k *keys) under(ctx context.Context, args []string, f readFlags, all bool, more ...clientv3.OpOption) (dir string, kvs []*mvccpb.KeyValue, err error) {
	if len(args) == 0 {
		args = []string{""}
	}
	dir = k.dir(args[0])
	c, err := k.connect(ctx)
	if err != nil {
		return dir, nil, err
	}
	defer c.Close()
	s := k.scope(dir, true)
	if !k.raw {
		s.one = "" // it is not below itself
	}
	kvs, rev, err := k.fetch(ctx, c, s, f, more...)
	if err != nil {
		return dir, nil, err
	}
	if dir == "/" && !k.raw {
		k.others(ctx, c, rev)
	}
	if len(kvs) == 0 && dir != "/" && dir != "" {
		return dir, nil, fault.New(fault.NotFound, "there is no key below %s", dir)
	}
	if !all && !k.raw {
		kvs = slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool { return hidden(string(kv.Key), dir) })
	}
	return dir, kvs, nil
}

// others tells of keys that have no leading "/", so that nobody thinks that there are none. What begins with a byte 0 is v2's own.
func (k *keys) others(ctx context.Context, c *clientv3.Client, rev int64) {
	req, cancel := k.bounded(ctx)
	defer cancel()
	opts := []clientv3.OpOption{clientv3.WithCountOnly(), clientv3.WithSerializable()}
	n := int64(0)
	for from, to := range map[string]string{"\x01": "/", "0": "\x00"} {
		r, err := c.Get(req, from, append(opts, clientv3.WithRange(to))...)
		if err != nil {
			return // a token need not open them, and this is only a remark
		}
		n += r.Count
	}
	if n > 0 {
		k.note("%d more without a leading /, at revision %d: flota key ls --raw lists them", n, rev)
	}
}

// newTree is `flota key tree`.
func (k *keys) newTree() *cobra.Command {
	var f readFlags
	var all bool
	c := &cobra.Command{
		Use: "tree [KEY]", Short: "Show the keys below a key as a tree, with their values",
		Long: `Show the keys below a key ("/" without one) as a tree, with their values, long ones shortened. With --json the tree is one object, as export --tree
prints it. Names that begin with "_" are hidden unless --all is given.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if k.raw {
				return fault.WithHint(fault.New(fault.Invalid, "keys taken byte by byte are no tree"), "flota key ls --raw lists them")
			}
			dir, kvs, err := k.under(cmd.Context(), args, f, all)
			if err != nil {
				return err
			}
			t := newNode()
			for _, kv := range kvs {
				t.add(strings.Split(strings.TrimPrefix(string(kv.Key), strings.TrimSuffix(dir, "/")+"/"), "/"), kv.Value)
			}
			if k.JSON() {
				v, err := t.object(dir)
				if err != nil {
					return err
				}
				return k.printJSON(v)
			}
			if _, err := fmt.Fprintln(k.Out, dir); err != nil {
				return err
			}
			return t.print(k.Out, "")
		},
	}
	k.readFlags(c, &f)
	c.Flags().BoolVarP(&all, "all", "a", false, `also names that begin with "_"`)
	return c
}

// node is a part of a tree of keys.
type node struct {
	value []byte // of the key that is here; nil: there is none, only keys below
	names []string
	below map[string]*node
}

func newNode() *node { return &node{below: map[string]*node{}} }

// add puts a value at the end of steps. An empty last step is an empty directory.
func (n *node) add(steps []string, value []byte) {
	if len(steps) == 0 {
		n.value = append([]byte{}, value...)
		return
	}
	if len(steps) == 1 && steps[0] == "" {
		return
	}
	next := n.below[steps[0]]
	if next == nil {
		next = newNode()
		n.below[steps[0]] = next
		n.names = append(n.names, steps[0])
	}
	next.add(steps[1:], value)
}

// print draws what is below n.
func (n *node) print(w io.Writer, indent string) error {
	slices.Sort(n.names)
	for i, name := range n.names {
		branch, next := "├── ", "│   "
		if i == len(n.names)-1 {
			branch, next = "└── ", "    "
		}
		sub, line := n.below[name], printable([]byte(name))
		if len(sub.names) > 0 || sub.value == nil {
			line += "/"
		}
		if sub.value != nil {
			line += ": " + short(sub.value)
		}
		if _, err := fmt.Fprintln(w, indent+branch+line); err != nil {
			return err
		}
		if err := sub.print(w, indent+next); err != nil {
			return err
		}
	}
	return nil
}
