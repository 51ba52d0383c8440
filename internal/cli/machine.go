package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/pick"
	"flota/internal/cli/show"
	"flota/internal/cli/track"
	"flota/internal/machine"
	"flota/internal/unit"
)

// drainPatience is how long `machine drain` waits for the units to move: a unit's time to start and to stop, 90 s each in systemd.
const drainPatience = 3 * time.Minute

// newMachine is `flota machine`; remove takes machines out of the cluster.
func (a *app) newMachine(remove *cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: "machine", Short: "List, label, drain and remove machines", Args: cobra.ArbitraryArgs, RunE: a.onlyCommands}
	all := show.Machines(show.Flota)
	all.Usual = []string{"machine", "id", "ip", "status", "role", "units", "metadata"}
	c.AddCommand(listCommand(a, "list", "List all machines, those that are gone too", all,
		func(ctx context.Context, c *api.Client, _ []string) ([]api.Machine, any, error) {
			ms, err := c.Machines(ctx)
			return ms, list(ms), err
		}))
	c.AddCommand(a.newMachineShow(), a.newMachineLabel(), a.newMachineDrain())
	c.AddCommand(a.machineVerb("resume", "Give drained machines units again", func(ctx context.Context, c *api.Client, name string) (string, error) {
		_, err := c.Resume(ctx, name)
		return "takes units again", err
	}))
	c.AddCommand(remove)
	return c
}

// machineVerb is a command that does one thing to each machine, and says so.
func (a *app) machineVerb(use, short string, do func(ctx context.Context, c *api.Client, name string) (string, error)) *cobra.Command {
	return a.onMachines(use, short, func(ctx context.Context, c *api.Client, names []string) error {
		for _, n := range names {
			text, err := do(ctx, c, n)
			if err != nil {
				return fmt.Errorf("%s %s: %w", use, n, err)
			}
			a.progress("%s: %s", n, text)
		}
		return nil
	})
}

// onMachines is a command on machines, named or by id.
func (a *app) onMachines(use, short string, do func(ctx context.Context, c *api.Client, names []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " MACHINE...", Short: short, Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			return do(cmd.Context(), c, names)
		},
	}
}

// newMachineShow is `flota machine show`.
func (a *app) newMachineShow() *cobra.Command {
	return a.onMachines("show", "Show all that is known of machines", func(ctx context.Context, c *api.Client, names []string) error {
		ms := make([]api.Machine, len(names))
		err := pick.Each(len(names), func(i int) (err error) {
			ms[i], err = c.Machine(ctx, names[i])
			return err
		})
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(ms)
		}
		units, err := c.Units(ctx)
		if err != nil {
			return err
		}
		a.stale(units.Stale)
		for i, m := range ms {
			if i > 0 {
				fmt.Fprintln(a.Out)
			}
			show.Machine(a.Out, m, units.Items, time.Now())
		}
		return nil
	})
}

// newMachineLabel is `flota machine label`.
func (a *app) newMachineLabel() *cobra.Command {
	return &cobra.Command{
		Use:   "label MACHINE KEY=VALUE|KEY-...",
		Short: "Set labels of a machine (KEY=VALUE) and remove them (KEY-)",
		Args:  cobra.MinimumNArgs(2), ValidArgsFunction: a.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			set := map[string]*string{}
			for _, arg := range args[1:] {
				if key, ok := strings.CutSuffix(arg, "-"); ok && !strings.Contains(arg, "=") {
					set[key] = nil
					continue
				}
				k, v, err := machine.ParseLabel(arg)
				if err != nil {
					return err
				}
				set[k] = &v
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			m, err := c.Label(cmd.Context(), args[0], set)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(m)
			}
			fmt.Fprintf(a.Out, "%s: %s\n", m.Name, machine.PrintLabels(m.All))
			return nil
		},
	}
}

// newMachineDrain is `flota machine drain`.
func (a *app) newMachineDrain() *cobra.Command {
	var w waitFlags
	c := a.onMachines("drain", "Take all units off machines and give them no others", func(ctx context.Context, c *api.Client, names []string) error {
		ids := map[machine.ID]bool{}
		for _, n := range names {
			m, err := c.Drain(ctx, n)
			if err != nil {
				return fmt.Errorf("drain %s: %w", n, err)
			}
			ids[m.ID] = true
			a.progress("%s: drained; %s to move", m.Name, show.Count(m.Units, "unit"))
		}
		if w.noBlock {
			return nil
		}
		patience := time.Duration(w.timeout)
		if patience == 0 {
			patience = drainPatience
		}
		return track.Empty(ctx, c, ids, patience, func(u unit.Name, text string) { a.progress("%s: %s", u, text) })
	})
	w.add(c)
	c.Flags().Lookup("timeout").Usage = "how long to wait for the units to be elsewhere, such as 30s or infinity (default: 3min)"
	return c
}
