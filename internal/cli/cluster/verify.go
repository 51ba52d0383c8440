package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"flota/internal/backup"
	"flota/internal/cli/show"
	"flota/internal/fault"
)

// newVerify is `flota backup verify`.
func (t *tool) newVerify() *cobra.Command {
	var k keyFlags
	c := &cobra.Command{
		Use: "verify FILE", Short: "Read a whole backup, restore it into a scratch store, and compare",
		Long: `Read a whole backup ("-" is standard input), restore it into a scratch store that nobody can reach, and compare all that it lists with what the backup says
that it holds. No cluster is asked or touched. The scratch store lies below TMPDIR and is removed again. The exit code is 2 if the backup is not
good, and 5 if the passphrase or key does not open it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withBackup(cmd.Context(), args[0], k, "read", func(r io.Reader, keys backup.Keys) error {
				rep, err := backup.Verify(cmd.Context(), r, keys, "")
				if err != nil {
					return err
				}
				if t.JSON() {
					return t.printJSON(rep)
				}
				return t.report(rep)
			})
		},
	}
	k.add(c)
	return c
}

// newInspect is `flota backup inspect`.
func (t *tool) newInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE", Short: "Say how a backup is encrypted, and of one that is not what it is of",
		Long: `Say, from the first bytes of a backup ("-" is standard input), how it is encrypted, and if it is not, which cluster it is of. Nothing is checked: see verify.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, how, err := t.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			if t.JSON() {
				return t.printJSON(how)
			}
			kinds := ""
			if len(how.Kinds) > 0 {
				all := slices.Compact(slices.Sorted(slices.Values(how.Kinds)))
				kinds = " (" + strings.Join(all, ", ") + ")"
			}
			fmt.Fprintf(t.Out, "%s%s\n", sealWords(how), kinds)
			if how.Manifest != nil {
				t.manifest(*how.Manifest)
			}
			return nil
		},
	}
}

// opened is a backup that is being read from its beginning.
type opened struct {
	io.Reader
	io.Closer
}

// open opens a backup and looks how it is sealed.
func (t *tool) open(ctx context.Context, path string) (*opened, backup.Sealed, error) {
	in, end := t.In, io.Closer(io.NopCloser(nil))
	if path == stdio {
		if isTerminal(t.In) {
			return nil, backup.Sealed{}, fault.New(fault.Invalid, "standard input is a terminal: name a file, or send a backup there")
		}
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, backup.Sealed{}, noFile(err, "read the backup")
		}
		if st, err := f.Stat(); err == nil && st.IsDir() {
			f.Close()
			return nil, backup.Sealed{}, fault.New(fault.Invalid, "read the backup: %s is a directory", path)
		}
		in, end = f, f
	}
	var head bytes.Buffer
	how, err := backup.Inspect(ctx, io.TeeReader(in, &head))
	if err != nil {
		_ = end.Close() // the first error tells
		return nil, how, err
	}
	return &opened{io.MultiReader(&head, in), end}, how, nil
}

// withBackup opens a backup with its keys, and reads it with a count of what has been read.
func (t *tool) withBackup(ctx context.Context, path string, k keyFlags, verb string, read func(io.Reader, backup.Keys) error) error {
	f, how, err := t.open(ctx, path)
	if err != nil {
		return err
	}
	defer f.Close()
	keys, err := t.keys(ctx, k, how, path != stdio)
	if err != nil {
		return err
	}
	m := t.newMeter(verb)
	defer m.end()
	return read(io.TeeReader(f, m), keys)
}

// report prints what a good backup holds.
func (t *tool) report(r backup.Report) error {
	t.manifest(r.Manifest)
	fmt.Fprintf(t.Out, "store: %s, revision %d, %s of %s\n\n", show.Bytes(r.Snapshot), r.Census.Revision, show.Count(int(r.Census.Keys), "key"), show.Bytes(r.Census.Bytes))
	rows := [][]string{}
	for _, p := range slices.Sorted(maps.Keys(r.Census.Tables)) {
		rows = append(rows, []string{p, fmt.Sprint(r.Census.Tables[p])})
	}
	if err := show.Table(t.Out, show.Flota, []string{"KEYS UNDER", "COUNT"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(t.Out, "\nThe backup is good: restored into a scratch store it gives all of this.")
	return err
}

// manifest prints what a backup is of.
func (t *tool) manifest(m backup.Manifest) {
	fmt.Fprintf(t.Out, "cluster: %s, epoch %d\n", m.Cluster, m.Epoch)
	fmt.Fprintf(t.Out, "made: %s by %s, flota %s\n", m.Created.Local().Format(stamp), m.Name, m.Version)
}
