// Package cluster is the commands that keep a cluster: flota token, trust, leave, recover, backup, restore, and machine remove.
//
// All but restore and the reading of backups are requests to a machine's API; what takes long is told step by step, on standard error, or with
// --json on standard output, one object a line. Restore and the reading of backups need no cluster and ask none.
//
// The invariant: nothing that cannot be taken back is done before a person has confirmed it, on a terminal or by --yes. A passphrase is read from
// a file or a terminal, never from the command line, and is told to no machine.
//
// It knows nothing of the store, and never decides who is a member or votes. Start reading at Env and New, then steps (steps.go), and saver (backup.go).
package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/fault"
)

// Complete completes the words of a command line.
type Complete = func(cmd *cobra.Command, had []string, begun string) ([]string, cobra.ShellCompDirective)

// Env is what the commands touch of the world, and what they need of the program around them. All must be set.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	JSON     func() bool                          // --json
	API      func() (*api.Client, error)          // a client of the cluster
	Exit     func(code int) error                 // the error that ends the program with the code and prints nothing
	Help     func(*cobra.Command, []string) error // the body of a command that only has others below it
	Machines Complete                             // names of machines
	DataDir  string                               // where flota up keeps a machine if it is told nothing
	PeerPort int                                  // where flota up puts the store's member if it is told nothing
}

// Commands are the commands of this room.
type Commands struct {
	Token, Trust, Backup, Leave, Recover, Restore *cobra.Command
	Remove                                        *cobra.Command // of flota machine
}

// tool is one run.
type tool struct {
	Env
	poll time.Duration // how often the change of an authority is looked at
}

// pollEvery is how often the change of an authority is looked at. 1 s: each of its steps takes about as long when all machines are there.
const pollEvery = time.Second

// New makes the commands.
func New(env Env) Commands { return (&tool{Env: env, poll: pollEvery}).commands() }

// commands makes them.
func (t *tool) commands() Commands {
	return Commands{
		Token: t.newToken(), Trust: t.newTrust(), Backup: t.newBackup(), Leave: t.newLeave(), Recover: t.newRecover(), Restore: t.newRestore(),
		Remove: t.newRemove(),
	}
}

// withAPI does something with a client of the cluster.
func (t *tool) withAPI(do func(*api.Client) error) error {
	c, err := t.API()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// note tells a person something beside the output.
func (t *tool) note(format string, args ...any) { fmt.Fprintf(t.Err, format+"\n", args...) }

// printJSON writes one JSON value, indented.
func (t *tool) printJSON(v any) error {
	enc := json.NewEncoder(t.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printLine writes one JSON value on one line, for streams.
func (t *tool) printLine(v any) error {
	enc := json.NewEncoder(t.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// parent is a command that only has others below it.
func (t *tool) parent(use, short, long string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.ArbitraryArgs, RunE: t.Help}
	c.AddCommand(below...)
	return c
}

// again adds to the error of a request whose connection broke that it may be made again; other errors stay as they are.
func again(err error) error {
	if fault.Is(err, fault.Unavailable) && fault.Hint(err) == "" {
		return fault.WithHint(err, "the same command goes on where this one ended")
	}
	return err
}
