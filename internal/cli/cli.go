// Package cli is the command line: everyday verbs on top (up start stop status logs why), nouns below (machine, dev).
// It parses words, calls the API's client, and prints; it knows nothing of the store.
//
// The invariant: tables are for people, --json is for programs and stable; what goes wrong is said on standard error as
// "flota: what: why" with a hint below, and the exit code tells the kind (see exitCodes).
// Called by the name fleetctl, the binary prints fleetctl's words and exit codes (fleetctl.go).
//
// Start reading at Main and newRoot.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"flota/internal/api"
	"flota/internal/daemon"
	"flota/internal/fault"
)

// Env is what a command touches of the world.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Version  string
	// Daemon runs this machine until ctx ends: daemon.Run.
	Daemon func(context.Context, daemon.Options) error
}

// app is one run of the program.
type app struct {
	Env
	socket  []string // --endpoint
	json    bool     // --json
	context string   // --context
}

// exitCodes by kind of error. 1 is everything without a code of its own, as every program does; 2 is wrong usage.
var exitCodes = map[fault.Kind]int{
	fault.Internal:    1,
	fault.Failed:      1,
	fault.Invalid:     2,
	fault.NotFound:    3,
	fault.Exists:      4,
	fault.Conflict:    4,
	fault.Denied:      5,
	fault.Unavailable: 6,
	fault.TimedOut:    7,
}

// silent is an error that has been told already; only its exit code counts.
type silent struct{ code int }

func (s silent) Error() string { return fmt.Sprintf("exit code %d", s.code) }

// Main runs one command line (args[0] is the program's name) and gives the exit code.
func Main(ctx context.Context, args []string, env Env) int {
	a := &app{Env: env}
	if filepath.Base(args[0]) == "fleetctl" {
		return a.fleetctl(ctx, args[1:])
	}
	root := a.newRoot()
	root.SetArgs(args[1:])
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	return a.report(ctx, root.ExecuteContext(ctx))
}

// report prints an error with its hint and gives the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	var s silent
	if errors.As(err, &s) {
		return s.code
	}
	if errors.Is(err, context.Canceled) || ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return 130 // as a shell reports an interrupted command
	}
	fmt.Fprintf(a.Err, "flota: %v\n", err)
	if h := fault.Hint(err); h != "" {
		fmt.Fprintf(a.Err, "  hint: %s\n", h)
	}
	return exitCodes[fault.KindOf(err)]
}

// client connects to the cluster that the flags, the environment or the current context name.
func (a *app) client() (*api.Client, error) {
	ends, err := a.endpoints()
	if err != nil {
		return nil, err
	}
	return api.NewClient(ends, api.ClientOptions{Agent: "flota/" + a.Version})
}
