package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/backup"
	"flota/internal/cli/show"
	"flota/internal/fault"
)

// newBackup is `flota backup`.
func (t *tool) newBackup() *cobra.Command {
	var s sealFlags
	c := &cobra.Command{
		Use: "backup FILE", Short: "Write what the cluster remembers into a file, encrypted; verify and inspect such files, and set when voters keep their own",
		Long: `Write what the cluster remembers, and the key of its authority, into FILE ("-" is standard output): a consistent copy, checksummed, encrypted with a
passphrase or to age recipients. The machine sends it to this command, which encrypts it: no machine learns the passphrase. FILE appears complete
or not at all; one that is there is replaced. Only root on a machine of the cluster may do this.`,
		Example: "  flota backup /srv/cluster.flota --passphrase-file /root/backup.pass\n  flota backup - --recipient age1… | ssh vault 'cat > cluster.flota'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.checkTarget(args[0]); err != nil {
				return err
			}
			seal, err := t.seal(cmd.Context(), s)
			if err != nil {
				return err
			}
			return t.withAPI(func(c *api.Client) error { return t.backup(cmd.Context(), c, args[0], seal) })
		},
	}
	s.add(c)
	c.AddCommand(t.newVerify(), t.newInspect(), t.newSchedule())
	return c
}

// stdio is the file that is standard input or output.
const stdio = "-"

// checkTarget refuses what a backup cannot be written to, before any work: fault.Invalid.
func (t *tool) checkTarget(path string) error {
	if path == stdio {
		if isTerminal(t.Out) {
			return fault.New(fault.Invalid, "a backup is nothing to look at: name a file, or send standard output elsewhere")
		}
		return nil
	}
	st, err := os.Stat(path)
	if err == nil && !st.Mode().IsRegular() { // it would be replaced by a file
		return fault.WithHint(fault.New(fault.Invalid, "%s is there and is no file", path), "flota backup - > %s writes to what is there", path)
	}
	return nil // what else may be wrong shows when it is written
}

// saver is one backup that is being made.
type saver struct {
	*tool
	client *api.Client
	seal   backup.Seal
	meter  *meter
	got    backup.Manifest
}

// saved is a backup that was made, for programs.
type saved struct {
	File     string          `json:"file"`
	Bytes    int64           `json:"bytes"`
	Manifest backup.Manifest `json:"manifest"`
}

// backup fetches a backup and writes it.
func (t *tool) backup(ctx context.Context, c *api.Client, path string, seal backup.Seal) error {
	s := &saver{tool: t, client: c, seal: seal, meter: t.newMeter("written")}
	write := func(w io.Writer) error { return s.fetch(ctx, w) }
	var err error
	if path == stdio {
		err = write(t.Out)
	} else {
		err = backup.Save(path, write)
	}
	s.meter.end()
	if err != nil {
		return err
	}
	if t.JSON() && path != stdio {
		return t.printJSON(saved{File: path, Bytes: s.meter.n, Manifest: s.got})
	}
	how := backup.Sealed{Plain: seal.Plain, Passphrase: seal.Passphrase != "", Recipients: len(seal.Recipients)}
	t.note("%s, %s: cluster %s at %s, copied from %s", show.Bytes(s.meter.n), sealWords(how), s.got.Cluster, s.got.Created.Local().Format(stamp), s.got.Name)
	if path != stdio {
		t.note("check it on another machine: flota backup verify %s", path)
	}
	return nil
}

// errStopped ends the sending of a backup that can be written no further.
var errStopped = errors.New("the backup is not read any more")

// fetch gets the backup from the machine, checks it, and writes it sealed to w.
func (s *saver) fetch(ctx context.Context, w io.Writer) (err error) {
	in, out := io.Pipe()
	sent := make(chan error, 1)
	go func() { // ends with the answer, or when in is closed
		err := s.client.Backup(ctx, out)
		out.CloseWithError(err) // nil is the end
		sent <- err
	}()
	s.got, err = backup.Copy(ctx, io.MultiWriter(w, s.meter), in, backup.Keys{}, s.seal)
	in.CloseWithError(errStopped)
	if from := <-sent; from != nil && !errors.Is(from, errStopped) {
		return from // what the machine says counts more than that its answer is no backup
	}
	return err
}

// meter counts what is written through it, and shows that on a terminal.
type meter struct {
	n     int64
	out   io.Writer // nil: nobody looks
	verb  string
	drawn time.Time
}

// redraw is how often a count is shown at most.
const redraw = 200 * time.Millisecond

// newMeter makes a meter; verb is what happens to the bytes.
func (t *tool) newMeter(verb string) *meter {
	m := &meter{verb: verb}
	if isTerminal(t.Err) {
		m.out = t.Err
	}
	return m
}

// Write implements io.Writer.
func (m *meter) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	if now := time.Now(); m.out != nil && now.Sub(m.drawn) > redraw {
		m.drawn = now
		fmt.Fprintf(m.out, "\r\x1b[K%s %s", show.Bytes(m.n), m.verb)
	}
	return len(p), nil
}

// end takes the count away.
func (m *meter) end() {
	if m.out != nil && !m.drawn.IsZero() {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}
