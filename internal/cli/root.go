package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"flota/internal/cli/cluster"
	"flota/internal/cli/keycmd"
	"flota/internal/daemon"
	"flota/internal/fault"
)

// The groups that help lists commands in.
const (
	groupEvery   = "every"
	groupUnits   = "units"
	groupCluster = "cluster"
	groupOther   = "other"
)

// newRoot is the whole command tree.
func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "flota",
		Short: "Flota turns Linux machines into one cluster and runs units on them",
		Long: `Flota turns Linux machines into one cluster and runs units, in systemd's syntax, on them.

Commands talk to the cluster that --endpoint, --context, FLOTA_ENDPOINT, FLOTA_CONTEXT or the current context names, in that
order; without any of these to the machine that they run on. Exit codes: 0 all well, 1 failed, 2 wrong usage or bad unit
file, 3 not found (for status also: not active), 4 conflict, 5 denied, 6 cluster unreachable, 7 timed out, 130 interrupted.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          a.onlyCommands,
	}
	f := root.PersistentFlags()
	f.StringSliceVar(&a.socket, "endpoint", nil, "unix:///path/flota.sock or http://host:port; several are tried in turn [FLOTA_ENDPOINT]")
	f.StringVar(&a.context, "context", "", "named cluster, see flota context [FLOTA_CONTEXT]")
	f.BoolVar(&a.json, "json", false, "print JSON for programs [FLOTA_JSON]")
	if yes := strings.ToLower(a.Getenv("FLOTA_JSON")); yes == "true" || yes == "1" || yes == "yes" {
		a.json = true
	}
	root.AddGroup(&cobra.Group{ID: groupEvery, Title: "Every day:"}, &cobra.Group{ID: groupUnits, Title: "Units:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"}, &cobra.Group{ID: groupOther, Title: "Other:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupEvery, a.newStart(), a.newStop(), a.newRestart(), a.newStatus(), a.newLogs(), a.newWhy(), a.newEvents())
	add(groupUnits, a.newSubmit(), a.newLoad(), a.newUnload(), a.newDestroy(), a.newCat(), a.newReload(), a.newResetFailed(),
		a.newListUnits(), a.newListUnitFiles())
	keep := a.keeping()
	add(groupCluster, a.newListMachines(), a.newMachine(keep.Remove), keep.Token, keep.Trust, keep.Backup, a.newKey(), a.newPlan(), a.newRebalance(), a.newContext())
	add(groupOther, a.newUp(), keep.Leave, keep.Recover, keep.Restore, a.newDev(), a.newVersion())
	root.AddCommand(a.newSupervise())
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	usage(root)
	return root
}

// newKey is `flota key`.
func (a *app) newKey() *cobra.Command {
	return keycmd.New(keycmd.Env{In: a.In, Out: a.Out, Err: a.Err, Getenv: a.Getenv, JSON: func() bool { return a.json }, API: a.client,
		Exit: func(code int) error { return silent{code} }, Help: a.onlyCommands})
}

// keeping gives the commands that keep the cluster.
func (a *app) keeping() cluster.Commands {
	return cluster.New(cluster.Env{In: a.In, Out: a.Out, Err: a.Err, Getenv: a.Getenv, JSON: func() bool { return a.json }, API: a.client,
		Exit: func(code int) error { return silent{code} }, Help: a.onlyCommands, Machines: a.completeMachines,
		DataDir: daemon.DefaultDataDir, PeerPort: daemon.DefaultPeerPort})
}

// onlyCommands is the body of a command that only has others below it: help, or the error for one that does not exist.
func (a *app) onlyCommands(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	err := fault.New(fault.Invalid, "unknown command %q for %q", args[0], c.CommandPath())
	if c.SuggestionsMinimumDistance <= 0 {
		c.SuggestionsMinimumDistance = 2
	}
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		return fault.WithHint(err, "did you mean %s?", strings.Join(like, " or "))
	}
	return fault.WithHint(err, "%s --help lists the commands", c.CommandPath())
}

// usage makes wrong flags and arguments of all commands fault.Invalid with a hint.
func usage(c *cobra.Command) {
	hint := func(c *cobra.Command, err error) error {
		return fault.WithHint(fault.Wrap(fault.Invalid, err, "%s", c.CommandPath()), "usage: %s", c.UseLine())
	}
	c.SetFlagErrorFunc(hint)
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return hint(c, err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usage(sub)
	}
}

// newVersion is `flota version`.
func (a *app) newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(map[string]string{"version": a.Version})
			}
			_, err := fmt.Fprintf(a.Out, "flota version %s\n", a.Version)
			return err
		},
	}
}
