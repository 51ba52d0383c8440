package fleetctl

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/show"
	"flota/internal/driver"
	"flota/internal/unit"
)

// exitNotActive is systemctl's exit code of status for a unit that is not active.
const exitNotActive = 3

// status is `fleetctl status`.
func (c *ctl) status() *cobra.Command {
	cmd := c.command("status UNIT...", "Output the status of one or more units in the cluster", func(args []string) int {
		list, err := c.api.Units(c.ctx)
		if err != nil {
			c.stderr("Error retrieving unit: %v", err)
			return 1
		}
		var units []api.Unit
		for _, arg := range args {
			name := unit.Name(unit.CompleteName(arg))
			i := slices.IndexFunc(list.Items, func(u api.Unit) bool { return u.Name == name })
			switch {
			case i < 0:
				c.stderr("Unit %s does not exist.", name)
				return 1
			case !list.Items[i].Global && list.Items[i].Current == unit.Inactive:
				c.stderr("Unit %s does not appear to be loaded.", name)
				return 1
			}
			units = append(units, list.Items[i])
		}
		for i, u := range units {
			if i > 0 {
				c.stdout("")
			}
			show.Block(c.Out, u, time.Now(), false)
			c.stdout("")
			_ = c.lines(u, driver.LogOptions{Lines: 10}) // a status without its log is better than none
			if !slices.ContainsFunc(u.States, func(s api.State) bool { return s.Active == "active" || s.Active == "reloading" }) {
				return exitNotActive
			}
		}
		return 0
	})
	c.sshFlags(cmd)
	return cmd
}

// sshFlags are taken and have no effect: nothing here needs SSH.
func (c *ctl) sshFlags(cmd *cobra.Command) {
	cmd.Flags().Int("ssh-port", 22, "")
	_ = cmd.Flags().MarkHidden("ssh-port") // it is there
}

// lines prints what a unit has printed.
func (c *ctl) lines(u api.Unit, o driver.LogOptions) error {
	return c.api.Logs(c.ctx, string(u.Name), "", o, func(l api.LogLine) error {
		_, err := fmt.Fprintf(c.Out, "%s %s %s: %s\n", l.Time.Local().Format("Jan 02 15:04:05"), l.Machine, u.Name, show.LogText(l))
		return err
	})
}

// journal is `fleetctl journal`.
func (c *ctl) journal() *cobra.Command {
	var o driver.LogOptions
	cmd := c.command("journal UNIT", "Print the journal of a unit in the cluster to stdout", func(args []string) int {
		if len(args) != 1 {
			c.stderr("One unit file must be provided.")
			return 1
		}
		u, ok := c.one(args)
		if !ok {
			return 1
		}
		if !u.Global && u.Current == unit.Inactive {
			c.stderr("Unit %s does not appear to be running.", u.Name)
			return 1
		}
		if err := c.lines(u, o); err != nil && c.ctx.Err() == nil {
			c.stderr("Error reading the journal of unit %s: %v", u.Name, err)
			return 1
		}
		return 0
	})
	f := cmd.Flags()
	f.IntVar(&o.Lines, "lines", 10, "number of recent log lines to return")
	f.BoolVarP(&o.Follow, "follow", "f", false, "continuously print new entries")
	f.BoolVar(&o.Follow, "f", false, "")
	f.String("output", "short", "")
	f.Bool("sudo", false, "")
	for _, name := range []string{"f", "output", "sudo"} {
		_ = f.MarkHidden(name) // it is there; output and sudo have no effect
	}
	c.sshFlags(cmd)
	return cmd
}

// list is a command that prints a table.
func list[T any](c *ctl, use, short string, cols show.Columns[T], what string, get func() ([]T, error)) *cobra.Command {
	o := show.Options{Style: show.Fleet}
	cmd := c.command(use, short, func([]string) int {
		if err := cols.Check(o.Fields); err != nil {
			c.stderr("%v", err)
			return 1
		}
		items, err := get()
		if err != nil {
			c.stderr("Error retrieving list of %s: %v", what, err)
			return 1
		}
		if err := cols.List(c.Out, o, items); err != nil {
			return 1
		}
		return 0
	})
	f := cmd.Flags()
	f.BoolVarP(&o.Full, "full", "l", false, "do not ellipsize fields on output")
	f.BoolVar(&o.Full, "l", false, "")
	_ = f.MarkHidden("l") // it is there
	f.BoolVar(&o.Bare, "no-legend", false, "do not print a legend (column headers)")
	f.StringVar(&o.Fields, "fields", "", "columns to print, of "+cols.Names())
	return cmd
}

// listUnits is `fleetctl list-units`.
func (c *ctl) listUnits() *cobra.Command {
	return list(c, "list-units", "List the current state of units in the cluster", show.Units(show.Fleet), "units from repository", func() ([]show.Row, error) {
		l, err := c.api.Units(c.ctx)
		return show.Rows(l.Items, false), err
	})
}

// listUnitFiles is `fleetctl list-unit-files`.
func (c *ctl) listUnitFiles() *cobra.Command {
	return list(c, "list-unit-files", "List the units that exist in the cluster.", show.UnitFiles(show.Fleet), "units from repository", func() ([]api.Unit, error) {
		l, err := c.api.Units(c.ctx)
		return l.Items, err
	})
}

// listMachines is `fleetctl list-machines`: those that are there, by id.
func (c *ctl) listMachines() *cobra.Command {
	return list(c, "list-machines", "Enumerate the current hosts in the cluster", show.Machines(show.Fleet), "active machines", func() ([]api.Machine, error) {
		all, err := c.api.Machines(c.ctx)
		all = slices.DeleteFunc(all, func(m api.Machine) bool { return m.Presence == nil })
		slices.SortFunc(all, func(a, b api.Machine) int { return cmp.Compare(a.ID, b.ID) })
		return all, err
	})
}
