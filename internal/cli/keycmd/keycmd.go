// Package keycmd is `flota key`: the applications' keys from the command line, and the tokens that open them.
//
// It speaks etcd's v3 protocol to the front that serves the keys on a machine, as any application does, and Flota's own API only to find
// the fronts and for tokens. It never touches the cluster's own memory.
//
// The invariant: a key is written as a path, "shop/color" and "/shop/color" are the same, the key "/shop/color" of v3 and v2; with --raw it is taken byte
// by byte, which is the way to v3 keys without a leading "/". "Below" a key always means the key itself and all keys below key + "/".
//
// Start reading at Env and New, then key (name.go) and connect (front.go).
package keycmd

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/setting"
)

// Env is what the commands touch of the world, and what they need of the program around them. All must be set.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	JSON     func() bool                          // --json
	API      func() (*api.Client, error)          // a client of the cluster
	Exit     func(code int) error                 // the error that ends the program with the code and prints nothing
	Help     func(*cobra.Command, []string) error // the body of a command that only has others below it
}

// keys is one run.
type keys struct {
	Env
	endpoints []string // --keys-endpoint
	token     string   // --keys-token
	raw       bool     // --raw
	patience  span     // --timeout
}

// defaultPatience is how long one request may take. 5 s: an election of etcd takes 1 to 2 s, and the front tries once more after it.
const defaultPatience = 5 * time.Second

// New is the command tree.
func New(env Env) *cobra.Command {
	k := &keys{Env: env, patience: span(defaultPatience)}
	c := &cobra.Command{
		Use:   "key",
		Short: "Read, write and watch the keys of applications",
		Long: `Read, write and watch the keys that applications share, the same on every machine.

A key is a path: shop/color and /shop/color are the same key, which etcd's v2 and v3 clients know as /shop/color. Keys of v3
clients without a leading "/" are left alone, and are reached with --raw, which takes keys byte by byte.`,
		Args: cobra.ArbitraryArgs,
		RunE: env.Help,
	}
	f := c.PersistentFlags()
	f.StringSliceVar(&k.endpoints, "keys-endpoint", nil, "HOST:PORT of a machine's keys; several are tried (default: ask the cluster) [FLOTA_KEYS]")
	f.StringVar(&k.token, "keys-token", "", "token for clusters that ask for one; better in the environment [FLOTA_KEYS_TOKEN]")
	f.BoolVar(&k.raw, "raw", false, "take keys byte by byte: no leading / is added, and --prefix compares bytes")
	f.Var(&k.patience, "timeout", "how long one request may take")
	c.AddCommand(k.newGet(), k.newPut(), k.newDel(), k.newLs(), k.newTree(), k.newWatch(), k.newImport(), k.newExport(), k.newLock(), k.newToken())
	return c
}

// span is a flag that takes systemd's time spans. It implements pflag.Value.
type span time.Duration

// Set reads a span above 0.
func (s *span) Set(text string) error {
	d, err := setting.Span(text)
	if err == nil && (d <= 0 || d == setting.Infinity) {
		err = fault.New(fault.Invalid, "want a time above 0, such as 30s")
	}
	*s = span(d)
	return err
}

// String prints the span; "" for none.
func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return setting.PrintSpan(time.Duration(*s))
}

// Type names the kind of value in help.
func (s *span) Type() string { return "time" }

// seconds rounds up to whole seconds, as leases count.
func (s span) seconds() int64 { return int64((time.Duration(s) + time.Second - 1) / time.Second) }

// note tells a person something beside the output.
func (k *keys) note(format string, args ...any) { fmt.Fprintf(k.Err, format+"\n", args...) }

// printJSON writes one JSON value, indented.
func (k *keys) printJSON(v any) error {
	enc := json.NewEncoder(k.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printLine writes one JSON value on one line, for streams.
func (k *keys) printLine(v any) error {
	enc := json.NewEncoder(k.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// isTerminal says whether a person sits at v.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks on the terminal; without one the answer is an error that tells of --yes.
func (k *keys) confirm(question string) (bool, error) {
	if !isTerminal(k.In) {
		return false, fault.WithHint(fault.New(fault.Invalid, "nothing was changed: nobody can be asked to confirm"), "--yes does it without asking")
	}
	fmt.Fprintf(k.Err, "%s [y/N] ", question)
	line := make([]byte, 0, 8)
	for b := make([]byte, 1); ; {
		if n, err := k.In.Read(b); n == 0 && err != nil || n == 1 && b[0] == '\n' {
			break
		} else if n == 1 && len(line) < cap(line) {
			line = append(line, b[0])
		}
	}
	answer := strings.ToLower(strings.TrimSpace(string(line)))
	return answer == "y" || answer == "yes", nil
}
