package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/pick"
	"flota/internal/cli/show"
	"flota/internal/driver"
)

// exitNotActive is the exit code of status for a unit that is not active. Source: systemctl status.
const exitNotActive = 3

// newStatus is `flota status`.
func (a *app) newStatus() *cobra.Command {
	var lines int
	c := a.command(verb{use: "status", short: "Show the cluster at a glance, or units with the last lines of their logs",
		long: "\nThe exit code is 3 if one of the units is not active anywhere, as with systemctl, and 0 for the cluster as a whole.\n"})
	c.Use, c.Args = "status [UNIT...]", cobra.ArbitraryArgs
	c.Flags().IntVarP(&lines, "lines", "n", lastLines, "how many lines of each unit's log")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		if len(args) == 0 {
			return a.glance(cmd.Context(), client)
		}
		return a.statusOf(cmd.Context(), client, args, lines)
	}
	return c
}

// glance shows the cluster.
func (a *app) glance(ctx context.Context, c *api.Client) error {
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(s)
	}
	return show.Glance(a.Out, s)
}

// statusOf shows units.
func (a *app) statusOf(ctx context.Context, c *api.Client, args []string, lines int) error {
	units, missing, err := a.picker(c, bringFlags{}, false).Find(ctx, args)
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(list(units)); err != nil {
			return err
		}
	} else {
		a.blocks(ctx, c, units, lines)
	}
	if err := pick.Missing(missing); err != nil {
		return err
	}
	for _, u := range units {
		if !isActive(u) {
			return silent{exitNotActive}
		}
	}
	return nil
}

// blocks prints units with their last lines, which are asked for together.
func (a *app) blocks(ctx context.Context, c *api.Client, units []api.Unit, lines int) {
	logs := make([][]api.LogLine, len(units))
	_ = pick.Each(len(units), func(i int) error {
		if lines <= 0 || len(units[i].Places) == 0 {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_ = c.Logs(ctx, string(units[i].Name), "", driver.LogOptions{Lines: lines}, func(l api.LogLine) error { // a status without its log is better than none
			logs[i] = append(logs[i], l)
			return nil
		})
		return nil
	})
	for i, u := range units {
		if i > 0 {
			fmt.Fprintln(a.Out)
		}
		show.Block(a.Out, u, time.Now(), a.color(a.Out))
		if len(logs[i]) > 0 {
			fmt.Fprintln(a.Out)
		}
		for _, l := range logs[i] {
			fmt.Fprintln(a.Out, show.Log(l, len(u.Places) > 1))
		}
	}
}

// isActive says whether a unit runs anywhere.
func isActive(u api.Unit) bool {
	for _, s := range u.States {
		if s.Active == "active" || s.Active == "reloading" {
			return true
		}
	}
	return false
}
