package fleetctl

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/pick"
	"flota/internal/cli/show"
	"flota/internal/cli/track"
	"flota/internal/fault"
	"flota/internal/unit"
)

// where names a unit's machine as fleetctl does.
func where(s track.Step) string { return show.Where(show.Fleet, s.ID, s.Machine, s.Addr, false) }

// create submits the units that are not in the cluster. allowed are the targets in which --replace may change a unit.
func (c *ctl) create(args []string, allowed ...unit.Target) (_ []pick.Brought, code int) {
	if c.unit.sign {
		c.stderr("Signed units are DEPRECATED and cannot be used")
		return nil, 2
	}
	p := pick.Picker{Source: c.api, Plain: true,
		Warn: func(name unit.Name, note string) { c.stderr("WARNING: Unit %s: %s", name, note) },
		Local: func(old api.Unit, file string, same bool) bool {
			switch {
			case same && c.unit.replace:
				c.stdout("Found same Unit(%s) in Registry, nothing to do", old.Name)
			case !same && !c.unit.replace:
				c.stderr("WARNING: Unit %s in registry differs from local unit file %s. Add --replace to override.", old.Name, file)
			case !same && !slices.Contains(allowed, old.Target):
				c.stderr("Warning: can not replace Unit(%s) in state '%s', use the appropriate command", old.Name, old.Target)
			default:
				return !same
			}
			return false
		},
	}
	all, err := p.Bring(c.ctx, args)
	if err != nil {
		c.stderr("Error creating units: %v", err)
		return nil, 1
	}
	for _, b := range all {
		if b.Created {
			c.stdout("Unit %s %s", b.Name, unit.Inactive)
		}
	}
	return all, 0
}

// request wants a target of a unit.
func (c *ctl) request(u api.Unit, to unit.Target, anew string) track.Request {
	return track.Request{Name: u.Name, Before: &u, Do: func(ctx context.Context) (api.Unit, error) {
		return c.api.SetTarget(ctx, string(u.Name), api.SetTarget{Target: to, Anew: anew})
	}}
}

// follow makes requests and waits for them; word is the state that is reported. verb is for messages.
func (c *ctl) follow(reqs []track.Request, verb, word string, goal track.Goal) (code int) {
	if c.unit.noBlock {
		for _, r := range reqs {
			if _, err := r.Do(c.ctx); err != nil {
				c.stderr("Unable to %s unit %s: %v", verb, r.Name, err)
				return 1
			}
			c.stdout("Triggered unit %s %s", r.Name, verb)
		}
		return 0
	}
	var names []unit.Name
	for _, r := range reqs {
		names = append(names, r.Name)
	}
	t := track.New(goal, names, c.unit.patience(), func(s track.Step) {
		switch {
		case s.Kind == track.Failed && s.Machine == "":
			c.stderr("Error waiting for units: unit %s %s", s.Unit, s.Text)
			code = 1
		case s.Kind == track.Failed:
			c.stdout("Unit %s %s on %s", s.Unit, word, where(s))
			c.stderr("Error waiting for units: Failed to find an active unit %s: %s", s.Unit, s.Text)
			code = 1
		case s.Kind == track.Done && s.Machine != "":
			c.stdout("Unit %s %s on %s", s.Unit, word, where(s))
		case s.Kind == track.Done:
			c.stdout("Unit %s %s", s.Unit, word)
		}
	})
	if err := t.Run(c.ctx, c.api, reqs, func(err error) { c.stderr("Warning: %v; trying again", err) }); err != nil {
		return 1
	}
	return code
}

// trigger wants a target of units that have another one, waits for those that are not global, and names the others.
func (c *ctl) trigger(units []api.Unit, verb string, to unit.Target, anew string, goal track.Goal) int {
	var reqs []track.Request
	for _, u := range units {
		r := c.request(u, to, anew)
		if !u.Global {
			reqs = append(reqs, r)
			continue
		}
		if _, err := r.Do(c.ctx); err != nil {
			c.stderr("Unable to %s unit %s: %v", verb, u.Name, err)
			return 1
		}
		c.stdout("Triggered global unit %s %s", u.Name, verb)
	}
	return c.follow(reqs, verb, string(to), goal)
}

// submit is `fleetctl submit`.
func (c *ctl) submit() *cobra.Command {
	return c.blockFlags(c.command("submit UNIT...", "Upload one or more units to the cluster without starting them", func(args []string) int {
		if len(args) == 0 {
			c.stderr("No units given")
			return 0
		}
		_, code := c.create(args, unit.Inactive)
		return code
	}), false, true)
}

// bring is the body of load and start.
func (c *ctl) bring(args []string, verb string, to unit.Target, goal track.Goal, allowed ...unit.Target) int {
	if len(args) == 0 {
		c.stderr("No units given")
		return 0
	}
	all, code := c.create(args, allowed...)
	if code != 0 {
		return code
	}
	var units []api.Unit
	for _, b := range all {
		if err := unit.CanActivate(b.Name); err != nil {
			c.stderr("Error %sing units: %v", verb, err)
			return 1
		}
		if b.Target != to || b.Replaced {
			units = append(units, b.Unit)
		}
	}
	return c.trigger(units, verb, to, "", goal)
}

// load is `fleetctl load`.
func (c *ctl) load() *cobra.Command {
	return c.blockFlags(c.command("load UNIT...", "Schedule one or more units in the cluster, first submitting them if necessary.", func(args []string) int {
		return c.bring(args, "load", unit.Loaded, track.Loaded, unit.Inactive, unit.Loaded)
	}), true, true)
}

// start is `fleetctl start`.
func (c *ctl) start() *cobra.Command {
	return c.blockFlags(c.command("start UNIT...", "Instruct the cluster to start one or more units, first submitting and loading if necessary.", func(args []string) int {
		return c.bring(args, "start", unit.Launched, track.Up, unit.Inactive, unit.Loaded, unit.Launched)
	}), true, true)
}

// find gives the units of the cluster that are named. Unknown names are left out; with no unit at all, code says what to exit with.
func (c *ctl) find(args []string) (found []api.Unit, ok bool, code int) {
	if len(args) == 0 {
		c.stderr("No units given")
		return nil, false, 0
	}
	list, err := c.api.Units(c.ctx)
	if err != nil {
		c.stderr("Error retrieving list of units from repository: %v", err)
		return nil, false, 1
	}
	var names []unit.Name
	for _, a := range args {
		names = append(names, unit.Name(unit.CompleteName(a)))
	}
	for _, u := range list.Items {
		if slices.Contains(names, u.Name) {
			found = append(found, u)
		}
	}
	if len(found) == 0 {
		c.stderr("Units not found in registry")
		return nil, false, 0
	}
	return found, true, 0
}

// stop is `fleetctl stop`.
func (c *ctl) stop() *cobra.Command {
	return c.blockFlags(c.command("stop UNIT...", "Instruct the cluster to stop one or more units.", func(args []string) int {
		units, ok, code := c.find(args)
		if !ok {
			return code
		}
		var todo []api.Unit
		names := []string{}
		for _, u := range units {
			switch {
			case !u.Global && u.Current == unit.Inactive:
				c.stderr("Unable to stop unit %s in state %s", u.Name, unit.Inactive)
				return 1
			case !u.Global && u.Current == unit.Loaded && u.Target != unit.Launched:
				continue
			case !u.Global:
				names = append(names, string(u.Name))
			}
			todo = append(todo, u)
		}
		if code = c.trigger(todo, "stop", unit.Loaded, "", track.Down); code != 0 {
			c.stderr("Failed to stop units %v. exit == %d.", names, code)
			return code
		}
		c.stderr("Successfully stopped units %v.", names)
		return 0
	}), true, false)
}

// unload is `fleetctl unload`.
func (c *ctl) unload() *cobra.Command {
	return c.blockFlags(c.command("unload UNIT...", "Unschedule one or more units in the cluster.", func(args []string) int {
		units, ok, code := c.find(args)
		if !ok {
			return code
		}
		var todo []api.Unit
		names := []string{}
		for _, u := range units {
			if !u.Global && u.Target == unit.Inactive && u.Current == unit.Inactive {
				continue
			}
			if !u.Global {
				names = append(names, string(u.Name))
			}
			todo = append(todo, u)
		}
		if code = c.trigger(todo, "unload", unit.Inactive, "", track.Off); code != 0 {
			c.stderr("Failed to unload units %v. exit == %d.", names, code)
			return code
		}
		c.stderr("Successfully unloaded units %v.", names)
		return 0
	}), true, false)
}

// restart is `fleetctl restart`.
func (c *ctl) restart() *cobra.Command {
	return c.blockFlags(c.command("restart UNIT...", "Instruct the cluster to restart one or more units.", func(args []string) int {
		units, ok, code := c.find(args)
		if !ok {
			return code
		}
		for _, u := range units {
			if !u.Global && u.Current == unit.Inactive {
				c.stderr("Unable to restart unit %s in state %s", u.Name, unit.Inactive)
				return 1
			}
		}
		return c.trigger(units, "restart", unit.Launched, "always", track.Up)
	}), true, false)
}

// destroy is `fleetctl destroy`.
func (c *ctl) destroy() *cobra.Command {
	return c.blockFlags(c.command("destroy UNIT...", "Destroy one or more units in the cluster", func(args []string) int {
		units, ok, code := c.find(args)
		if !ok {
			return code
		}
		for _, u := range units {
			if err := c.api.Destroy(c.ctx, string(u.Name)); err != nil && !fault.Is(err, fault.NotFound) {
				c.stderr("Error destroying units: %v", err)
				return 1
			}
			c.stdout("Destroyed %s", u.Name)
		}
		return 0
	}), true, false)
}

// one gives the single unit that a command wants.
func (c *ctl) one(args []string) (api.Unit, bool) {
	if len(args) != 1 {
		c.stderr("One unit file must be provided")
		return api.Unit{}, false
	}
	u, err := c.api.Unit(c.ctx, unit.CompleteName(args[0]))
	if err != nil {
		what := fmt.Sprintf("Error retrieving Unit %s: %v", unit.CompleteName(args[0]), err)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
			what = fmt.Sprintf("Unit %s not found", unit.CompleteName(args[0]))
		}
		c.stderr("%s", what)
		return u, false
	}
	return u, true
}

// cat is `fleetctl cat`.
func (c *ctl) cat() *cobra.Command {
	return c.command("cat UNIT", "Output the contents of a submitted unit", func(args []string) int {
		u, ok := c.one(args)
		if !ok {
			return 1
		}
		fmt.Fprint(c.Out, u.File().Text())
		return 0
	})
}
