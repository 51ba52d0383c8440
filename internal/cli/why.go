package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/pick"
	"flota/internal/cli/show"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/unit"
)

// newWhy is `flota why`.
func (a *app) newWhy() *cobra.Command {
	return &cobra.Command{
		Use:   "why UNIT|MACHINE...",
		Short: "Say why units are where and how they are, or how machines are",
		Args:  cobra.MinimumNArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, had []string, to string) ([]string, cobra.ShellCompDirective) {
			units, _ := a.completeUnits(cmd, had, to)
			machines, dir := a.completeMachines(cmd, had, to)
			return append(units, machines...), dir
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			all := []api.Why{}
			for _, arg := range args {
				w, err := why(cmd.Context(), c, arg)
				if err != nil {
					return err
				}
				all = append(all, w)
			}
			if a.json {
				return a.printJSON(all)
			}
			for i, w := range all {
				if i > 0 {
					fmt.Fprintln(a.Out)
				}
				a.tellWhy(w)
			}
			return nil
		},
	}
}

// why asks for a unit, or if there is none of a machine of that name.
func why(ctx context.Context, c *api.Client, arg string) (api.Why, error) {
	name, err := unit.ParseName(unit.CompleteName(arg))
	if err == nil {
		w, err := c.WhyUnit(ctx, string(name))
		if !fault.Is(err, fault.NotFound) || string(name) == arg {
			return w, err
		}
	} else if machine.CheckName(arg) != nil {
		return api.Why{}, err
	}
	w, err := c.WhyMachine(ctx, arg)
	if fault.Is(err, fault.NotFound) {
		err = fault.WithHint(fault.New(fault.NotFound, "there is neither a unit %q nor a machine %q", string(name), arg), "flota list-unit-files and flota machine list show what there is")
	}
	return w, err
}

// tellWhy prints an answer.
func (a *app) tellWhy(w api.Why) {
	for _, s := range w.Sentences {
		fmt.Fprintln(a.Out, s)
	}
	if len(w.Events) > 0 {
		fmt.Fprintln(a.Out)
	}
	for _, e := range w.Events {
		fmt.Fprintln(a.Out, "  "+show.Event(e))
	}
}

// newPlan is `flota plan`.
func (a *app) newPlan() *cobra.Command {
	var r api.PlanRequest
	var add []string
	c := &cobra.Command{
		Use:   "plan [--kill MACHINE]... [--drain MACHINE]... [--add FILE]...",
		Short: "Show what would happen to units; nothing is changed",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if r.Add, err = addUnits(add); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			p, err := c.Plan(cmd.Context(), r)
			if err != nil {
				return err
			}
			return a.printPlan(p, "nothing would change")
		},
	}
	c.Flags().StringSliceVar(&r.Kill, "kill", nil, "as if this machine died (repeatable)")
	c.Flags().StringSliceVar(&r.Drain, "drain", nil, "as if this machine were drained (repeatable)")
	c.Flags().StringArrayVar(&add, "add", nil, "as if this unit file were started; an instance gets its template's file beside (repeatable)")
	_ = c.RegisterFlagCompletionFunc("kill", a.completeMachines) // these fail only for flags that are not there
	_ = c.RegisterFlagCompletionFunc("drain", a.completeMachines)
	return c
}

// addUnits reads the files of --add.
func addUnits(args []string) ([]api.AddUnit, error) {
	all, err := unit.ExpandArgs(args)
	if err != nil {
		return nil, err
	}
	var out []api.AddUnit
	for _, arg := range all {
		name, err := unit.ParseName(unit.CompleteName(arg))
		if err != nil {
			return nil, err
		}
		if err := unit.CanActivate(name); err != nil {
			return nil, fault.WithHint(err, "name an instance of it, such as %s", name.WithInstance("1"))
		}
		dir := filepath.Dir(arg)
		text, _, err := pick.Read(filepath.Join(dir, string(name)), name)
		if fault.Is(err, fault.NotFound) && name.IsInstance() {
			text, _, err = pick.Read(filepath.Join(dir, string(name.Template())), name)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, api.AddUnit{Name: name, Text: text})
	}
	return out, nil
}

// printPlan prints a plan, or nothing for one that does nothing.
func (a *app) printPlan(p api.Plan, nothing string) error {
	if a.json {
		return a.printJSON(p)
	}
	return show.Plan(a.Out, p, nothing)
}

// newRebalance is `flota rebalance`.
func (a *app) newRebalance() *cobra.Command {
	var apply bool
	c := &cobra.Command{
		Use:   "rebalance [--apply]",
		Short: "Show how units would be spread anew over the machines, and do it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			p, err := c.Rebalance(cmd.Context(), apply)
			if err != nil {
				return err
			}
			if err := a.printPlan(p, "nothing to do: the units are spread as evenly as they may be"); err != nil || len(p.Moves) == 0 {
				return err
			}
			if apply {
				a.progress("under way; flota events -f shows it")
			} else {
				a.progress("nothing was changed; flota rebalance --apply does this")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&apply, "apply", false, "carry it out: units start at their new place before they stop at the old one")
	return c
}
