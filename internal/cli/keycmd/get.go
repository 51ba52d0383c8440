package keycmd

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"flota/internal/fault"
)

// newGet is `flota key get`.
func (k *keys) newGet() *cobra.Command {
	var f readFlags
	var prefix, bare bool
	c := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key, or with --prefix all keys below it",
		Long: `Print the value of a key and a newline after it (-n leaves that out, so that the value comes byte by byte). With --prefix print the key
and all keys below it, one "KEY: VALUE" per line; values that do not fit on a line are quoted. The exit code is 3 if there is none.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := k.dir(args[0]), error(nil)
			if !prefix {
				name, err = k.key(args[0])
			}
			if err != nil {
				return err
			}
			cl, err := k.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			all, _, err := k.fetch(cmd.Context(), cl, k.scope(name, prefix), f)
			if err != nil {
				return err
			}
			if prefix {
				all = slices.DeleteFunc(all, func(kv *mvccpb.KeyValue) bool { return k.marker(kv.Key) })
			}
			if len(all) == 0 {
				return fault.New(fault.NotFound, "there is no key %s%s", name, map[bool]string{true: " and none below it"}[prefix])
			}
			return k.printKeys(all, prefix, bare)
		},
	}
	k.readFlags(c, &f)
	c.Flags().BoolVar(&prefix, "prefix", false, "all keys below KEY, too")
	c.Flags().BoolVarP(&bare, "no-newline", "n", false, "no newline after the value")
	return c
}

// readFlags adds the flags of commands that read.
func (k *keys) readFlags(c *cobra.Command, f *readFlags) {
	c.Flags().BoolVar(&f.stale, "stale", false, "read one machine's copy, which may be old; also answered without a quorum")
}

// printKeys prints one value, or many keys.
func (k *keys) printKeys(all []*mvccpb.KeyValue, many, bare bool) error {
	switch {
	case k.JSON() && many:
		items := make([]Item, len(all))
		for i, kv := range all {
			items[i] = itemOf(kv)
		}
		return k.printJSON(items)
	case k.JSON():
		return k.printJSON(itemOf(all[0]))
	case !many:
		end := "\n"
		if bare {
			end = ""
		}
		_, err := fmt.Fprintf(k.Out, "%s%s", all[0].Value, end)
		return err
	}
	for _, kv := range all {
		if _, err := fmt.Fprintf(k.Out, "%s: %s\n", printable(kv.Key), printable(kv.Value)); err != nil {
			return err
		}
	}
	return nil
}
