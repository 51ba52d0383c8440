package keycmd

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"flota/internal/fault"
)

// base64Mark is the one name in an object that stands for a value that is not text: {"$base64": "/w=="}.
const base64Mark = "$base64"

// newExport is `flota key export`.
func (k *keys) newExport() *cobra.Command {
	var f readFlags
	var tree, relative bool
	c := &cobra.Command{
		Use:   "export [KEY]",
		Short: "Print keys and values as JSON, for import",
		Long: `Print the key and all keys below it ("/" without one), all as they were at one moment, as one JSON object {"/shop/color": "blue"}; with --tree as
objects in objects {"shop": {"color": "blue"}}. A value that is not text is {"$base64": "…"}. Import reads both forms.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := k.dir(strings.Join(args, ""))
			cl, err := k.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			all, _, err := k.fetch(cmd.Context(), cl, k.scope(dir, true), f)
			if err != nil {
				return err
			}
			v, err := k.exported(dir, all, tree, relative)
			if err != nil {
				return err
			}
			return k.printJSON(v)
		},
	}
	k.readFlags(c, &f)
	c.Flags().BoolVar(&tree, "tree", false, "objects in objects")
	c.Flags().BoolVar(&relative, "relative", false, "name keys from KEY on, so that they can be imported elsewhere with --prefix")
	return c
}

// exported is what export prints.
func (k *keys) exported(dir string, all []*mvccpb.KeyValue, tree, relative bool) (any, error) {
	if tree && k.raw {
		return nil, fault.New(fault.Invalid, "keys taken byte by byte are no tree")
	}
	flat, root := map[string]any{}, newNode()
	for _, kv := range all {
		name := string(kv.Key)
		if k.marker(kv.Key) {
			continue
		}
		if relative {
			if name = strings.TrimPrefix(name, strings.TrimSuffix(dir, "/")); name == "" {
				return nil, fault.New(fault.Invalid, "%s has a value itself, which has no name below it", dir)
			}
		}
		flat[name] = jsonValue(kv.Value)
		root.add(strings.Split(strings.TrimPrefix(name, "/"), "/"), kv.Value)
	}
	if tree {
		return root.object("/")
	}
	return flat, nil
}

// jsonValue is text as a string, and anything else as Base64.
func jsonValue(b []byte) any {
	text, b64 := valueOf(b)
	if text == nil {
		return map[string]string{base64Mark: b64}
	}
	return *text
}

// object gives the tree as objects in objects. A key that has a value and keys below it has no such form: fault.Invalid.
func (n *node) object(at string) (any, error) {
	if n.value != nil && len(n.names) > 0 {
		return nil, fault.WithHint(fault.New(fault.Invalid, "%s has a value and keys below it, which is no tree", at), "flota key export without --tree can tell it")
	}
	if n.value != nil {
		return jsonValue(n.value), nil
	}
	out := map[string]any{}
	for name, sub := range n.below {
		v, err := sub.object(strings.TrimSuffix(at, "/") + "/" + name)
		if err != nil {
			return nil, err
		}
		out[name] = v
	}
	return out, nil
}

// newImport is `flota key import`.
func (k *keys) newImport() *cobra.Command {
	var o importOptions
	c := &cobra.Command{
		Use:   "import FILE|-",
		Short: "Set keys from JSON, after showing what would change",
		Long: `Set keys from a JSON object, as export prints it: {"/shop/color": "blue"} or {"shop": {"color": "blue"}}; numbers, true and false become their
text. What would change is shown first (+ new, ~ changed, - deleted) and done when it is confirmed, or at once with --yes. Up to 100 changes are
done together or not at all, more in parts of 100; a key that somebody changed since it was shown stops it (exit code 4).`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return k.load(cmd.Context(), args[0], o)
		},
	}
	c.Flags().StringVar(&o.prefix, "prefix", "", "put the keys below this one")
	c.Flags().BoolVar(&o.replace, "replace", false, "delete the keys below --prefix that are not in FILE")
	c.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&o.dry, "dry-run", false, "only show what would change")
	return c
}

// importOptions are what `flota key import` may be told.
type importOptions struct {
	prefix            string
	replace, yes, dry bool
}

// load imports.
func (k *keys) load(ctx context.Context, file string, o importOptions) error {
	args := []string{"-"}
	if file != "-" {
		args = nil
	} else {
		file = ""
	}
	raw, err := k.input(args, file)
	if err != nil {
		return err
	}
	want, err := k.parse(raw, o.prefix)
	if err != nil {
		return err
	}
	switch {
	case len(want) == 0 && !o.replace:
		return fault.New(fault.Invalid, "there are no keys in it")
	case o.replace && k.raw && o.prefix == "":
		return fault.New(fault.Invalid, "--raw --replace needs a --prefix")
	}
	c, err := k.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	changes, err := k.compare(ctx, c, want, o)
	if err != nil {
		return err
	}
	if !k.JSON() {
		if err := printChanges(k.Out, changes); err != nil {
			return err
		}
	}
	if len(changes) == 0 || o.dry {
		return k.loaded(changes, 0, nil)
	}
	if !o.yes {
		ok, err := k.confirm(fmt.Sprintf("%d of %d keys change. Do it?", len(changes), len(want)))
		if err != nil || !ok {
			return orDeclined(k, err)
		}
	}
	done, err := k.apply(ctx, c, changes)
	return k.loaded(changes, done, err)
}

// loaded tells what became of an import.
func (k *keys) loaded(changes []change, done int, err error) error {
	if k.JSON() {
		out := make([]shownChange, len(changes))
		for i, c := range changes {
			out[i] = c.shown()
		}
		if e := k.printJSON(map[string]any{"changes": out, "done": done}); e != nil && err == nil {
			err = e
		}
	}
	if err != nil && done > 0 {
		return fault.Wrap(fault.KindOf(err), err, "%d of %d changes were made, then", done, len(changes))
	}
	if !k.JSON() && err == nil {
		k.note("%d changed", done)
	}
	return err
}

// parse reads an object of keys and values.
func (k *keys) parse(raw []byte, prefix string) (map[string][]byte, error) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the JSON: want an object of keys")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fault.New(fault.Invalid, "read the JSON: something follows the object")
	}
	want := map[string][]byte{}
	if k.raw {
		return want, k.gather(want, prefix, v, "")
	}
	return want, k.gather(want, k.dir(prefix), v, "/")
}

// gather puts the values of an object into want.
func (k *keys) gather(want map[string][]byte, at string, v map[string]any, join string) error {
	for _, name := range slices.Sorted(maps.Keys(v)) {
		full := at + join + name
		if !k.raw {
			full = k.dir(full)
		}
		if full == "" || !k.raw && k.dir(name) == "/" {
			return fault.New(fault.Invalid, "%q names no key", name)
		}
		value, sub, err := leaf(v[name])
		switch {
		case err != nil:
			return fault.Wrap(fault.Invalid, err, "%s", full)
		case sub != nil && k.raw:
			return fault.New(fault.Invalid, "%s: objects in objects are no raw keys", full)
		case sub != nil:
			if err := k.gather(want, full, sub, join); err != nil {
				return err
			}
			continue
		}
		if _, twice := want[full]; twice {
			return fault.New(fault.Invalid, "%s is named twice", full)
		}
		want[full] = value
	}
	return nil
}

// leaf gives the bytes of a value, or the object that it is.
func leaf(v any) (value []byte, sub map[string]any, err error) {
	switch v := v.(type) {
	case string:
		return []byte(v), nil, nil
	case json.Number:
		return []byte(v.String()), nil, nil
	case bool:
		return fmt.Append(nil, v), nil, nil
	case map[string]any:
		text, marked := v[base64Mark].(string)
		if !marked || len(v) != 1 {
			return nil, v, nil
		}
		b, err := base64.StdEncoding.DecodeString(text)
		return b, nil, err
	}
	return nil, nil, fault.New(fault.Invalid, "a value is text, a number, true, false or an object, not %T", v)
}
