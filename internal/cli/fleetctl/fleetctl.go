// Package fleetctl speaks fleetctl's words: its commands, flags, columns, messages and exit codes, over Flota's own API, so that
// scripts written for fleet go on working. status and journal therefore need no SSH.
//
// The invariant: what fleetctl 1.0.0 prints on success and on the errors that scripts look for is the same here, byte for byte; the
// exit codes too, those for unknown commands included. Its bugs that only hurt (panics, a restart that hangs, -l that fails, waiting for
// ever for a unit that cannot be placed) are not kept.
//
// Source of all words and codes: facts on fleet, sections 1.1 to 1.6. Start reading at Run.
package fleetctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flota/internal/api"
	"flota/internal/setting"
)

// Env is what the program touches of the world.
type Env struct {
	In        io.Reader
	Out, Err  io.Writer
	Getenv    func(string) string
	Version   string
	Endpoints func() ([]string, error) // when neither --endpoint nor FLEETCTL_ENDPOINT is given
}

// ctl is one run.
type ctl struct {
	Env
	ctx      context.Context
	api      *api.Client
	endpoint string
	driver   string
	tunnel   string
	unit     unitFlags
}

// unitFlags are those that commands on units share.
type unitFlags struct {
	noBlock  bool
	attempts int // rounds of 2 s; 0 waits as long as it takes
	replace  bool
	sign     bool
}

// patience is how long to wait.
func (f unitFlags) patience() time.Duration {
	if f.attempts <= 0 {
		return setting.Infinity
	}
	return time.Duration(f.attempts) * 2 * time.Second
}

// exit is an error that has been told; only its code counts.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Run runs one command line without the program's name and gives the exit code.
func Run(ctx context.Context, args []string, env Env) int {
	c := &ctl{Env: env, ctx: ctx}
	if len(args) > 0 && (args[0] == "-v" || args[0] == "--version") {
		args = []string{"version"}
	}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	var e exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return int(e)
	}
	fmt.Fprintf(env.Err, "Error: %v\n", err)
	return 0 // a wrong command or flag, which fleetctl answers with success
}

// root is the command tree.
func (c *ctl) root() *cobra.Command {
	cobra.EnablePrefixMatching = true // fleetctl list-m is fleetctl list-machines
	root := &cobra.Command{
		Use:   "fleetctl",
		Short: "fleetctl is a command-line interface to a cluster, in fleet's words",
		Long: "fleetctl is a command-line interface to a cluster, in fleet's words.\n\nVERSION:\n  " + c.Version +
			"\n\nThis is flota under the name fleetctl; flota --help shows more.",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	f := root.PersistentFlags()
	f.StringVar(&c.endpoint, "endpoint", "", "location of the API: unix:///path/flota.sock or http://host:port (default: as flota)")
	f.StringVar(&c.driver, "driver", "API", "only API is offered")
	f.StringVar(&c.tunnel, "tunnel", "", "not offered")
	for name, usage := range map[string]string{
		"etcd-key-prefix": "", "ca-file": "", "cert-file": "", "key-file": "", "etcd-cafile": "", "etcd-certfile": "", "etcd-keyfile": "",
		"request-timeout": "", "ssh-username": "", "ssh-timeout": "", "known-hosts-file": "",
	} {
		f.String(name, "", usage)
		_ = f.MarkHidden(name) // it is there; taken and without effect, as scripts may give it
	}
	for _, name := range []string{"experimental-api", "strict-host-key-checking", "debug"} {
		f.Bool(name, name != "debug", "")
		_ = f.MarkHidden(name)
	}
	f.VisitAll(func(fl *pflag.Flag) {
		if v := c.Getenv("FLEETCTL_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))); v != "" {
			if err := f.Set(fl.Name, v); err == nil {
				fl.Changed = false
			}
		}
	})
	root.AddCommand(c.submit(), c.load(), c.start(), c.stop(), c.unload(), c.destroy(), c.restart(), c.cat(), c.status(), c.journal(),
		c.listUnits(), c.listUnitFiles(), c.listMachines())
	root.AddCommand(&cobra.Command{Use: "version", Short: "Print the version and exit", Run: func(*cobra.Command, []string) {
		fmt.Fprintf(c.Out, "fleetctl version %s\n", c.Version)
	}})
	root.AddCommand(c.refuse("ssh", "Not offered", 1, "fleetctl ssh is not offered here: use ssh itself; fleetctl journal and status need none"))
	root.AddCommand(c.refuse("fd-forward", "Not offered", 1, "fleetctl fd-forward is not offered here: --endpoint takes the address of any machine"))
	root.AddCommand(c.refuse("verify", "DEPRECATED - No longer works", 2, "DEPRECATED - No longer works"))
	return root
}

// refuse is a command that only says why it does nothing.
func (c *ctl) refuse(use, short string, code int, why string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, DisableFlagParsing: true, RunE: func(*cobra.Command, []string) error {
		c.stderr("%s", why)
		return exit(code)
	}}
}

// command is one that talks to the cluster.
func (c *ctl) command(use, short string, run func(args []string) int) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, RunE: func(cmd *cobra.Command, args []string) error {
		if err := c.connect(); err != nil {
			c.stderr("Unable to initialize client: %v", err)
			return exit(1)
		}
		defer c.api.Close()
		code := run(args)
		if c.ctx.Err() != nil {
			code = 130
		}
		if code != 0 {
			return exit(code)
		}
		return nil
	}}
}

// connect makes the client.
func (c *ctl) connect() error {
	switch {
	case c.driver == "etcd":
		return errors.New("the driver etcd is not offered here: leave --driver out")
	case !strings.EqualFold(c.driver, "API"):
		return fmt.Errorf("unrecognized driver %q", c.driver)
	case c.tunnel != "":
		return errors.New("--tunnel is not offered here: --endpoint takes the address of any machine")
	}
	ends := []string{c.endpoint}
	if c.endpoint == "" {
		var err error
		if ends, err = c.Endpoints(); err != nil {
			return err
		}
	} else if first, _, several := strings.Cut(c.endpoint, ","); several {
		c.stderr("WARNING: multiple endpoints provided but only the first (%s) is used", first)
		ends = []string{first}
	}
	var err error
	c.api, err = api.NewClient(ends, api.ClientOptions{Agent: "fleetctl/" + c.Version})
	return err
}

func (c *ctl) stdout(format string, args ...any) { fmt.Fprintf(c.Out, format+"\n", args...) }
func (c *ctl) stderr(format string, args ...any) { fmt.Fprintf(c.Err, format+"\n", args...) }

// blockFlags adds the flags of commands that wait, and with replace those of commands that submit.
func (c *ctl) blockFlags(cmd *cobra.Command, block, replace bool) *cobra.Command {
	f := cmd.Flags()
	if block {
		f.IntVar(&c.unit.attempts, "block-attempts", 0, "give up after so many rounds of 2 s; 0 is no limit")
		f.BoolVar(&c.unit.noBlock, "no-block", false, "do not wait")
	}
	if replace {
		f.BoolVar(&c.unit.replace, "replace", false, "replace the units in the cluster with the local files")
		f.BoolVar(&c.unit.sign, "sign", false, "DEPRECATED - this option cannot be used")
		_ = f.MarkHidden("sign") // it is there
	}
	return cmd
}
