package cli

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/known"
	"flota/internal/cli/show"
	"flota/internal/fault"
)

// newContext is `flota context`: names for clusters.
func (a *app) newContext() *cobra.Command {
	c := &cobra.Command{Use: "context", Short: "Name the clusters you work with and choose one", Args: cobra.ArbitraryArgs, RunE: a.onlyCommands}
	names := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		all, _ := a.contexts().Read() // none, then
		return slices.Sorted(maps.Keys(all.Contexts)), cobra.ShellCompDirectiveNoFileComp
	}
	use := &cobra.Command{
		Use: "use NAME [ENDPOINT...]", Short: "Make a context current; with endpoints, make it first",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: names,
		RunE: func(_ *cobra.Command, args []string) error { return a.useContext(args[0], args[1:]) },
	}
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Forget a context; the cluster is not touched",
		Args: cobra.ExactArgs(1), ValidArgsFunction: names,
		RunE: func(_ *cobra.Command, args []string) error { return a.removeContext(args[0]) },
	}
	c.AddCommand(a.newContextList(), a.newContextShow(), use, remove)
	return c
}

// newContextList is `flota context list`.
func (a *app) newContextList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List contexts", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := a.contexts().Read()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(all)
			}
			rows := [][]string{}
			for _, n := range slices.Sorted(maps.Keys(all.Contexts)) {
				mark := ""
				if n == all.Current {
					mark = "*"
				}
				rows = append(rows, []string{mark, n, strings.Join(all.Contexts[n], ",")})
			}
			return show.Table(a.Out, show.Flota, []string{" ", "NAME", "ENDPOINTS"}, rows)
		},
	}
}

// newContextShow is `flota context show`.
func (a *app) newContextShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the endpoints that commands would talk to now", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ends, err := a.endpoints()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(ends)
			}
			_, err = a.Out.Write([]byte(strings.Join(ends, "\n") + "\n"))
			return err
		},
	}
}

// useContext makes a context current, after making it if endpoints are given.
func (a *app) useContext(name string, ends []string) error {
	if len(ends) > 0 {
		if _, err := api.NewClient(ends, api.ClientOptions{}); err != nil {
			return err
		}
	} else if all, err := a.contexts().Read(); err != nil {
		return err
	} else if _, ok := all.Contexts[name]; !ok {
		return fault.WithHint(fault.New(fault.NotFound, "no context named %q", name), "make it with: flota context use %s ENDPOINT", shellQuote(name))
	}
	err := a.contexts().Change(func(c *known.Contexts) {
		if len(ends) > 0 {
			c.Contexts[name] = ends
		}
		c.Current = name
	})
	if err == nil {
		a.progress("the current context is %s", name)
	}
	return err
}

// removeContext forgets a context.
func (a *app) removeContext(name string) error {
	all, err := a.contexts().Read()
	if err != nil {
		return err
	}
	if _, ok := all.Contexts[name]; !ok {
		return fault.WithHint(fault.New(fault.NotFound, "no context named %q", name), "see them with: flota context list")
	}
	return a.contexts().Change(func(c *known.Contexts) {
		delete(c.Contexts, name)
		if c.Current == name {
			c.Current = ""
		}
	})
}
