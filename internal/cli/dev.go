package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"flota/internal/cli/known"
	"flota/internal/dev"
	"flota/internal/fault"
)

// devContext is the name of the context that `flota dev up` makes current.
const devContext = "dev"

// newDev is `flota dev`: several machines on this host.
func (a *app) newDev() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster of several machines on this host, to try things",
		Long: `Run a cluster of several machines on this host: each is a whole flota up with its own address on the loopback
interface, its own data and its own supervisor. kill cuts a machine's power, start brings it back.`,
		Args: cobra.ArbitraryArgs, RunE: a.onlyCommands,
	}
	c.PersistentFlags().StringVar(&dir, "dir", "", "folder of the cluster [FLOTA_DEV_DIR] (default: the one started last, or a folder of your home)")
	open := func() (*dev.Cluster, error) {
		if d := a.lastDev(); d != "" && dir == "" {
			return dev.Open(d)
		}
		d, err := devDir(dir)
		if err != nil {
			return nil, err
		}
		return dev.Open(d)
	}
	c.AddCommand(a.newDevUp(&dir), a.newDevEnv(open), a.newDevStatus(open), a.newDevDown(open))
	c.AddCommand(a.devVerb(open, "stop", "Shut machines down cleanly: their units start elsewhere first",
		func(ctx context.Context, c *dev.Cluster, name string) error { return c.Stop(ctx, name) }))
	c.AddCommand(a.devVerb(open, "kill", "Cut the power of machines: agent, supervisor and units are SIGKILLed",
		func(_ context.Context, c *dev.Cluster, name string) error { return c.Kill(name) }))
	c.AddCommand(a.devVerb(open, "start", "Start machines again and wait until they are ready",
		func(ctx context.Context, c *dev.Cluster, name string) error {
			return c.Start(ctx, name, dev.Options{Progress: a.progress})
		}))
	return c
}

// devDir is the folder that --dir, the environment or the user's home gives.
func devDir(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	return dev.DefaultDir()
}

// lastDev is the folder of the cluster that `flota dev up` started last, if the environment names no other; "" when there is none.
func (a *app) lastDev() string {
	c, err := a.contexts().Read()
	ends := c.Contexts[devContext]
	if err != nil || len(ends) == 0 || a.Getenv("FLOTA_DEV_DIR") != "" {
		return ""
	}
	socket, ok := strings.CutPrefix(ends[0], "unix://")
	d := filepath.Dir(filepath.Dir(socket))
	if _, err := dev.Open(d); !ok || err != nil {
		return ""
	}
	return d
}

// progress says on standard error what is being done.
func (a *app) progress(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }

// newDevUp is `flota dev up`.
func (a *app) newDevUp(dir *string) *cobra.Command {
	var o dev.Options
	var detach bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Start the cluster and make it the current context",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := devDir(*dir)
			if err != nil {
				return err
			}
			o.Dir, o.Progress = d, a.progress
			if os.Geteuid() != 0 {
				a.progress("not root: User=, limits by cgroup and most sandbox keys cannot be honoured; `flota status UNIT` says which")
			}
			cl, err := dev.Up(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := a.contexts().Change(func(c *known.Contexts) { c.Contexts[devContext], c.Current = cl.Endpoints(), devContext }); err != nil {
				return err
			}
			a.progress("%d machines are ready at %s.1 to %s.%d; data in %s", cl.Machines, cl.Base, cl.Base, cl.Machines, cl.Dir)
			if detach {
				return nil
			}
			a.progress("ctrl-C ends the cluster and its units (with --detach it goes on in the background)")
			<-cmd.Context().Done()
			return a.down(context.WithoutCancel(cmd.Context()), cl)
		},
	}
	c.Flags().IntVarP(&o.Machines, "machines", "n", 0, "how many machines (default 3)")
	c.Flags().StringVar(&o.Base, "base", "", "first three bytes of their addresses (default "+dev.DefaultBase+")")
	c.Flags().BoolVar(&detach, "detach", false, "return when the machines are ready and leave them running")
	return c
}

// newDevEnv is `flota dev env`.
func (a *app) newDevEnv(open func() (*dev.Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print exports that make a shell, flota and fleetctl talk to the cluster",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			ends := c.Endpoints()
			fmt.Fprintf(a.Out, "export FLOTA_DEV_DIR=%s\n", shellQuote(c.Dir))
			fmt.Fprintf(a.Out, "export FLOTA_ENDPOINT=%s\n", shellQuote(joinComma(ends)))
			fmt.Fprintf(a.Out, "export FLEETCTL_ENDPOINT=%s\n", shellQuote(ends[0]))
			return nil
		},
	}
}

// newDevStatus is `flota dev status`.
func (a *app) newDevStatus(open func() (*dev.Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the processes of the machines on this host",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			st := c.Status()
			if a.json {
				return a.printJSON(st)
			}
			w := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "MACHINE\tADDRESS\tAGENT\tSUPERVISOR\tSOCKET")
			for _, m := range st {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.Addr, pidOrDash(m.Agent), pidOrDash(m.Supervisor), m.Socket)
			}
			return w.Flush()
		},
	}
}

// newDevDown is `flota dev down`.
func (a *app) newDevDown(open func() (*dev.Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the cluster and its units, and remove its folder",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := open()
			if fault.Is(err, fault.NotFound) {
				a.progress("%v: nothing to do", err)
				return nil
			}
			if err != nil {
				return err
			}
			return a.down(cmd.Context(), c)
		},
	}
}

// down ends a cluster and forgets its context.
func (a *app) down(ctx context.Context, c *dev.Cluster) error {
	a.progress("ending %d machines and their units", c.Machines)
	if err := c.Down(ctx); err != nil {
		return err
	}
	return a.contexts().Change(func(all *known.Contexts) {
		if ends := all.Contexts[devContext]; len(ends) > 0 && ends[0] == c.Endpoints()[0] {
			delete(all.Contexts, devContext)
			if all.Current == devContext {
				all.Current = ""
			}
		}
	})
}

// devVerb is a command that does one thing to each named machine.
func (a *app) devVerb(open func() (*dev.Cluster, error), verb, short string, do func(context.Context, *dev.Cluster, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME...",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			c, err := open()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return c.Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			for _, n := range names {
				if err := do(cmd.Context(), c, n); err != nil {
					return err
				}
				a.progress("%s: %s done", n, verb)
			}
			return nil
		},
	}
}
