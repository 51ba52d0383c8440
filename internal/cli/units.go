package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/pick"
	"flota/internal/cli/track"
	"flota/internal/unit"
)

// argsHelp is said of every command that takes units.
const argsHelp = `
UNIT is a file (web.service, ./units/web.service), the name of a unit (web stands for web.service), an instance of a template
(web@1), a range (web@{1..3}) or a quoted glob of the cluster's units ('web@*'). A unit is looked for in the cluster, as a
local file, as an instance of a template in the cluster, and of a template file beside, in this order.`

// bringFlags are the flags of commands that bring units into the cluster.
type bringFlags struct{ replace, strict bool }

func (b *bringFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&b.replace, "replace", false, "replace the cluster's unit if the local file differs; one that runs is restarted with it")
	c.Flags().BoolVar(&b.strict, "strict", false, "refuse unit files that would only be warned of")
}

// picker finds units with a command's flags.
func (a *app) picker(c *api.Client, b bringFlags, run bool) *pick.Picker {
	return &pick.Picker{
		Source: c, Strict: b.strict, Run: run,
		Local: func(old api.Unit, file string, same bool) bool {
			if !same && !b.replace {
				a.progress("warning: %s in the cluster differs from %s; --replace puts the file in its place", old.Name, file)
			}
			return !same && b.replace
		},
		Warn: func(name unit.Name, note string) { a.progress("warning: %s: %s", name, note) },
	}
}

// verb is a command on units.
type verb struct {
	use, short, long string
	run              func(ctx context.Context, c *api.Client, args []string) error
}

// command makes the command of a verb; it completes the names of units.
func (a *app) command(v verb) *cobra.Command {
	return &cobra.Command{
		Use: v.use + " UNIT...", Short: v.short, Long: v.short + ".\n" + v.long + argsHelp,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeUnits,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			return v.run(cmd.Context(), c, args)
		},
	}
}

// target is a request for a target, with Anew for launched ones.
func target(c *api.Client, name unit.Name, before *api.Unit, to unit.Target, anew string) track.Request {
	return track.Request{Name: name, Before: before, Do: func(ctx context.Context) (api.Unit, error) {
		return c.SetTarget(ctx, string(name), api.SetTarget{Target: to, Anew: anew})
	}}
}

// bringAll brings units and gives a request for each.
func (a *app) bringAll(ctx context.Context, c *api.Client, args []string, b bringFlags, to unit.Target, anew string) ([]track.Request, error) {
	all, err := a.picker(c, b, true).Bring(ctx, args)
	if err != nil {
		return nil, err
	}
	reqs := make([]track.Request, len(all))
	for i, one := range all {
		reqs[i] = target(c, one.Name, one.Before, to, anew)
	}
	return reqs, nil
}

// findAll finds units that must be there.
func (a *app) findAll(ctx context.Context, c *api.Client, args []string, run bool) ([]api.Unit, error) {
	found, missing, err := a.picker(c, bringFlags{}, run).Find(ctx, args)
	if err != nil {
		return nil, err
	}
	return found, pick.Missing(missing)
}

// result prints the units as they are now, for --json.
func (a *app) result(ctx context.Context, c *api.Client, reqs []track.Request, err error) error {
	if err != nil || !a.json {
		return err
	}
	units := make([]api.Unit, len(reqs))
	err = pick.Each(len(reqs), func(i int) (err error) {
		units[i], err = c.Unit(ctx, string(reqs[i].Name))
		return err
	})
	if err != nil {
		return err
	}
	return a.printJSON(units)
}

// newStart is `flota start`.
func (a *app) newStart() *cobra.Command {
	var b bringFlags
	var w waitFlags
	c := a.command(verb{"start", "Start units, bringing them into the cluster if need be", `
It waits until each is active, or a oneshot unit has finished, and fails with the reason and the last lines of its log if
one fails or cannot be placed.`,
		func(ctx context.Context, c *api.Client, args []string) error {
			reqs, err := a.bringAll(ctx, c, args, b, unit.Launched, "down")
			if err != nil {
				return err
			}
			return a.result(ctx, c, reqs, a.follow(ctx, c, "start", track.Up, reqs, w))
		}})
	b.add(c)
	w.add(c)
	return c
}

// newLoad is `flota load`.
func (a *app) newLoad() *cobra.Command {
	var b bringFlags
	var w waitFlags
	c := a.command(verb{"load", "Place units on machines without starting them", "\nUnits that run are stopped.",
		func(ctx context.Context, c *api.Client, args []string) error {
			reqs, err := a.bringAll(ctx, c, args, b, unit.Loaded, "")
			if err != nil {
				return err
			}
			return a.result(ctx, c, reqs, a.follow(ctx, c, "load", track.Loaded, reqs, w))
		}})
	b.add(c)
	w.add(c)
	return c
}

// newSubmit is `flota submit`.
func (a *app) newSubmit() *cobra.Command {
	var b bringFlags
	c := a.command(verb{"submit", "Bring unit files into the cluster without placing them on machines", "",
		func(ctx context.Context, c *api.Client, args []string) error {
			all, err := a.picker(c, b, false).Bring(ctx, args)
			if err != nil {
				return err
			}
			units := []api.Unit{}
			for _, one := range all {
				units = append(units, one.Unit)
				what := "is in the cluster already"
				if one.Created {
					what = "submitted"
				} else if one.Replaced {
					what = "replaced"
				}
				if !a.json {
					fmt.Fprintf(a.Out, "%s: %s\n", one.Name, what)
				}
			}
			if a.json {
				return a.printJSON(units)
			}
			return nil
		}})
	b.add(c)
	return c
}

// change is a verb that wants a target of units that are there.
func (a *app) change(v verb, goal track.Goal, to unit.Target, anew string) *cobra.Command {
	var w waitFlags
	v.run = func(ctx context.Context, c *api.Client, args []string) error {
		units, err := a.findAll(ctx, c, args, to == unit.Launched)
		if err != nil {
			return err
		}
		var reqs []track.Request
		for _, u := range units {
			if to == unit.Loaded && u.Target != unit.Launched && u.Target != unit.Loaded {
				a.newPrinter(len(units)).Step(track.Step{Unit: u.Name, Text: "is not loaded"}) // loading it is not what stop is for
				continue
			}
			reqs = append(reqs, target(c, u.Name, &u, to, anew))
		}
		return a.result(ctx, c, reqs, a.follow(ctx, c, v.use, goal, reqs, w))
	}
	c := a.command(v)
	w.add(c)
	return c
}

// newStop is `flota stop`.
func (a *app) newStop() *cobra.Command {
	return a.change(verb{use: "stop", short: "Stop units; they stay on their machines", long: "\nWhat is not running is left as it is."},
		track.Down, unit.Loaded, "")
}

// newRestart is `flota restart`.
func (a *app) newRestart() *cobra.Command {
	return a.change(verb{use: "restart", short: "Stop units and start them again, where they are", long: "\nUnits that do not run are started."},
		track.Up, unit.Launched, "always")
}

// newUnload is `flota unload`.
func (a *app) newUnload() *cobra.Command {
	return a.change(verb{use: "unload", short: "Stop units and take them off their machines; they stay in the cluster"},
		track.Off, unit.Inactive, "")
}

// newDestroy is `flota destroy`.
func (a *app) newDestroy() *cobra.Command {
	var w waitFlags
	c := a.command(verb{destroy, "Stop units and remove them from the cluster", "\nWith --no-block they are removed first, and stopped where they run a moment later.",
		func(ctx context.Context, c *api.Client, args []string) error {
			units, err := a.findAll(ctx, c, args, false)
			if err != nil {
				return err
			}
			var reqs []track.Request
			for _, u := range units {
				if len(u.Places)+len(u.States) > 0 && !w.noBlock {
					reqs = append(reqs, target(c, u.Name, &u, unit.Inactive, ""))
				}
			}
			if err := a.follow(ctx, c, destroy, track.Off, reqs, w); err != nil {
				return err
			}
			return a.each(units, "destroyed", func(name unit.Name) error { return c.Destroy(ctx, string(name)) })
		}})
	w.add(c)
	return c
}

// each does something to units, at most track.Limit at once, and says so of each.
func (a *app) each(units []api.Unit, done string, do func(unit.Name) error) error {
	errs := make([]error, len(units))
	_ = pick.Each(len(units), func(i int) error {
		errs[i] = do(units[i].Name)
		return nil
	})
	p := a.newPrinter(len(units))
	for i, u := range units {
		if errs[i] != nil {
			p.Step(track.Step{Unit: u.Name, Kind: track.Failed, Text: errs[i].Error(), Err: errs[i]})
		} else {
			p.Step(track.Step{Unit: u.Name, Kind: track.Done, Text: done})
		}
	}
	p.End()
	if len(p.Failed) == 1 && len(units) == 1 {
		return p.Failed[0].Err
	}
	return failures(done, len(units), p.Failed)
}

// newReload is `flota reload`.
func (a *app) newReload() *cobra.Command {
	return a.command(verb{"reload", "Have units reload their configuration (ExecReload=)", "",
		func(ctx context.Context, c *api.Client, args []string) error {
			units, err := a.findAll(ctx, c, args, true)
			if err != nil {
				return err
			}
			return a.each(units, "reloaded", func(name unit.Name) error { return c.Reload(ctx, string(name)) })
		}})
}

// newResetFailed is `flota reset-failed`.
func (a *app) newResetFailed() *cobra.Command {
	return a.command(verb{"reset-failed", "Forget the failures of units and their count of restarts", "",
		func(ctx context.Context, c *api.Client, args []string) error {
			units, err := a.findAll(ctx, c, args, true)
			if err != nil {
				return err
			}
			return a.each(units, "reset", func(name unit.Name) error { return c.ResetFailed(ctx, string(name)) })
		}})
}

// newCat is `flota cat`.
func (a *app) newCat() *cobra.Command {
	return a.command(verb{"cat", "Print unit files as the cluster has them", "",
		func(ctx context.Context, c *api.Client, args []string) error {
			units, err := a.findAll(ctx, c, args, false)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(units)
			}
			for i, u := range units {
				if len(units) > 1 {
					if i > 0 {
						fmt.Fprintln(a.Out)
					}
					fmt.Fprintf(a.Out, "# %s\n", u.Name)
				}
				fmt.Fprint(a.Out, u.File().Text())
			}
			return nil
		}})
}
