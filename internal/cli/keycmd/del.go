package keycmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
)

// newDel is `flota key del`.
func (k *keys) newDel() *cobra.Command {
	var prefix, yes bool
	c := &cobra.Command{
		Use: "del KEY...", Short: "Delete keys, or with --prefix all keys below them",
		Long: `Delete keys, all at once or none; with --prefix also all keys below them. The exit code is 3 if there was nothing to delete.
Deleting everything (--prefix /) asks first, or wants --yes.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var scopes []scope
			for _, arg := range args {
				name := k.dir(arg)
				if prefix && (name == "/" || name == "") && !yes {
					if ok, err := k.confirm("Delete all keys?"); err != nil || !ok {
						return orDeclined(k, err)
					}
				}
				if !prefix {
					var err error
					if name, err = k.key(arg); err != nil {
						return err
					}
				}
				scopes = append(scopes, k.scope(name, prefix))
			}
			return k.del(cmd.Context(), scopes)
		},
	}
	c.Flags().BoolVar(&prefix, "prefix", false, "all keys below KEY, too")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// orDeclined is err, or the end of a command whose question was answered with no.
func orDeclined(k *keys, err error) error {
	if err != nil {
		return err
	}
	k.note("nothing was changed")
	return k.Exit(1)
}

// del deletes all scopes in one transaction.
func (k *keys) del(ctx context.Context, scopes []scope) error {
	var ops []clientv3.Op
	for _, s := range scopes {
		s.each(func(key string, o ...clientv3.OpOption) { ops = append(ops, clientv3.OpDelete(key, o...)) })
	}
	c, err := k.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	req, cancel := k.bounded(ctx)
	defer cancel()
	r, err := c.Txn(req).Then(ops...).Commit()
	if err != nil {
		return problem(ctx, err)
	}
	n := int64(0)
	for _, one := range r.Responses {
		n += one.GetResponseDeleteRange().GetDeleted()
	}
	if n == 0 {
		return fault.New(fault.NotFound, "there is nothing to delete")
	}
	if k.JSON() {
		return k.printJSON(map[string]int64{"deleted": n})
	}
	_, err = fmt.Fprintf(k.Err, "%d deleted\n", n)
	return err
}
