package keycmd

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
)

// maxInput is the largest value or import that is read. 64 MiB: far above what the keys take, so that they say what is too large.
const maxInput = 64 << 20

// putFlags are what `flota key put` may be told.
type putFlags struct {
	ttl      span
	absent   bool
	value    string
	hasValue bool
	revision int64
	file     string
}

// newPut is `flota key put`.
func (k *keys) newPut() *cobra.Command {
	var f putFlags
	c := &cobra.Command{
		Use:   "put KEY [VALUE|-]",
		Short: "Set a key, if wanted only if it is as expected",
		Long: `Set a key to VALUE, to the content of --file, or to what comes on standard input, byte by byte. With one of the --if- flags it is set only if
the key is as they say, and the exit code is 4 if it is not; the check and the change are one.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := k.key(args[0])
			if err != nil {
				return err
			}
			f.hasValue = cmd.Flags().Changed("if-value")
			value, err := k.input(args[1:], f.file)
			if err != nil {
				return err
			}
			return k.put(cmd.Context(), name, string(value), f)
		},
	}
	c.Flags().Var(&f.ttl, "ttl", "the key expires after this time, such as 30s, unless it is set again")
	c.Flags().BoolVar(&f.absent, "if-absent", false, "only if there is no such key")
	c.Flags().StringVar(&f.value, "if-value", "", "only if this is its value")
	c.Flags().Int64Var(&f.revision, "if-revision", 0, "only if it was changed last at this revision (see get --json)")
	c.Flags().StringVarP(&f.file, "file", "f", "", "take the value from this file")
	return c
}

// input gives the value that was asked for: an argument, a file, or standard input.
func (k *keys) input(args []string, file string) ([]byte, error) {
	var from io.Reader
	switch {
	case file != "" && len(args) > 0:
		return nil, fault.New(fault.Invalid, "give either a value or --file")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, fault.Wrap(fault.NotFound, err, "read the value")
		}
		defer f.Close()
		from = f
	case len(args) > 0 && args[0] != "-":
		return []byte(args[0]), nil
	case len(args) == 0 && isTerminal(k.In):
		return nil, fault.WithHint(fault.New(fault.Invalid, "no value is given"), "flota key put KEY VALUE, or bring it on standard input; '' is the empty value")
	default:
		from = k.In
	}
	b, err := io.ReadAll(io.LimitReader(from, maxInput+1))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the value")
	}
	if len(b) > maxInput {
		return nil, fault.New(fault.Invalid, "more than %d MiB come in", maxInput>>20)
	}
	return b, nil
}

// put sets the key in one transaction, and prints what it is then.
func (k *keys) put(ctx context.Context, name, value string, f putFlags) error {
	var conds []clientv3.Cmp
	if f.absent {
		conds = append(conds, clientv3.Compare(clientv3.CreateRevision(name), "=", 0))
	}
	if f.hasValue {
		conds = append(conds, clientv3.Compare(clientv3.Value(name), "=", f.value))
	}
	if f.revision != 0 {
		conds = append(conds, clientv3.Compare(clientv3.ModRevision(name), "=", f.revision))
	}
	c, err := k.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	req, cancel := k.bounded(ctx)
	defer cancel()
	var opts []clientv3.OpOption
	if f.ttl > 0 {
		l, err := c.Grant(req, f.ttl.seconds())
		if err != nil {
			return problem(ctx, err)
		}
		opts = append(opts, clientv3.WithLease(l.ID))
	}
	r, err := c.Txn(req).If(conds...).Then(clientv3.OpPut(name, value, opts...), clientv3.OpGet(name)).Else(clientv3.OpGet(name)).Commit()
	switch {
	case err != nil:
		return problem(ctx, err)
	case !r.Succeeded:
		return unexpected(name, r)
	}
	if kvs := r.Responses[1].GetResponseRange().GetKvs(); k.JSON() && len(kvs) == 1 {
		return k.printJSON(itemOf(kvs[0]))
	}
	return nil
}

// unexpected is the error of a change whose condition did not hold. Its lease, if any, ends by itself.
func unexpected(name string, r *clientv3.TxnResponse) error {
	is := "there is no such key"
	for _, kv := range r.Responses[0].GetResponseRange().GetKvs() {
		is = fmt.Sprintf("it is %s, changed at revision %d", short(kv.Value), kv.ModRevision)
	}
	return fault.New(fault.Conflict, "%s is not as expected and was not changed: %s", name, is)
}
