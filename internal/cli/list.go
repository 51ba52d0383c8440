package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/show"
	"flota/internal/unit"
)

// listFlags are the flags of lists, which are fleetctl's.
type listFlags struct{ show.Options }

func (l *listFlags) add(c *cobra.Command, all string) {
	c.Flags().BoolVarP(&l.Full, "full", "l", false, "do not shorten: whole ids and hashes")
	c.Flags().BoolVar(&l.Bare, "no-legend", false, "no header")
	c.Flags().StringVar(&l.Fields, "fields", "", "columns to show, of "+all)
}

// listCommand is a command that asks and prints a table; with --json the same as the API has it.
func listCommand[T any](a *app, use, short string, cols show.Columns[T], ask func(ctx context.Context, c *api.Client, args []string) (items []T, raw any, err error)) *cobra.Command {
	var l listFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cols.Check(l.Fields); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			items, raw, err := ask(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(raw)
			}
			return cols.List(a.Out, l.Options, items)
		},
	}
	l.add(cmd, cols.Names())
	return cmd
}

// stale warns of an answer that may be old.
func (a *app) stale(yes bool) {
	if yes {
		a.progress("warning: read without a quorum; this may be old")
	}
}

// newListUnits is `flota list-units`.
func (a *app) newListUnits() *cobra.Command {
	c := listCommand(a, "list-units [UNIT...]", "List units with their machines and states, and those that wait for a machine", show.Units(show.Flota),
		func(ctx context.Context, c *api.Client, args []string) ([]show.Row, any, error) {
			units, err := a.listed(ctx, c, args)
			units = slices.DeleteFunc(units, func(u api.Unit) bool {
				return len(u.States) == 0 && (u.Target == unit.Inactive || u.Name.IsTemplate())
			})
			return show.Rows(units, true), list(units), err
		})
	c.Args, c.ValidArgsFunction = cobra.ArbitraryArgs, a.completeUnits
	return c
}

// newListUnitFiles is `flota list-unit-files`.
func (a *app) newListUnitFiles() *cobra.Command {
	c := listCommand(a, "list-unit-files [UNIT...]", "List all units in the cluster, placed or not", show.UnitFiles(show.Flota),
		func(ctx context.Context, c *api.Client, args []string) ([]api.Unit, any, error) {
			units, err := a.listed(ctx, c, args)
			return units, list(units), err
		})
	c.Args, c.ValidArgsFunction = cobra.ArbitraryArgs, a.completeUnits
	return c
}

// listed gives the units that the arguments stand for, all without any.
func (a *app) listed(ctx context.Context, c *api.Client, args []string) ([]api.Unit, error) {
	if len(args) > 0 {
		return a.findAll(ctx, c, args, false)
	}
	l, err := c.Units(ctx)
	a.stale(l.Stale)
	return l.Items, err
}

// newListMachines is `flota list-machines`.
func (a *app) newListMachines() *cobra.Command {
	return listCommand(a, "list-machines", "List the machines that are there", show.Machines(show.Flota),
		func(ctx context.Context, c *api.Client, _ []string) ([]api.Machine, any, error) {
			all, err := c.Machines(ctx)
			all = slices.DeleteFunc(all, func(m api.Machine) bool { return m.Presence == nil })
			return all, list(all), err
		})
}

// completePatience bounds what a completion may take.
const completePatience = time.Second

// completeUnits completes the names of units, and files.
func (a *app) completeUnits(cmd *cobra.Command, had []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
	defer cancel()
	c, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	defer c.Close()
	l, err := c.Units(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault // files, then
	}
	var out []string
	for _, u := range l.Items {
		if !slices.Contains(had, string(u.Name)) {
			out = append(out, string(u.Name))
		}
	}
	return out, cobra.ShellCompDirectiveDefault
}

// completeMachines completes the names of machines.
func (a *app) completeMachines(cmd *cobra.Command, had []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
	defer cancel()
	c, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	all, _ := c.Machines(ctx) // none, then
	var out []string
	for _, m := range all {
		if !slices.Contains(had, m.Name) {
			out = append(out, m.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
