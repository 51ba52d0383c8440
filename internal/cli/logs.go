package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/show"
	"flota/internal/cli/track"
	"flota/internal/driver"
)

// logFlags are the flags of `flota logs`.
type logFlags struct {
	driver.LogOptions
	machine string
	times   bool
}

// newLogs is `flota logs`.
func (a *app) newLogs() *cobra.Command {
	var l logFlags
	c := a.command(verb{"logs", "Print what units have printed, wherever they run",
		`
Lines of several units are put in the order of their time and named. Lines that begin with -- are said of the unit by the
machine. -f goes on with new lines until ctrl-C.`,
		func(ctx context.Context, c *api.Client, args []string) error {
			units, err := a.findAll(ctx, c, args, true)
			if err != nil {
				return err
			}
			return a.logs(ctx, c, units, l)
		}})
	c.Flags().BoolVarP(&l.Follow, "follow", "f", false, "go on with new lines")
	c.Flags().IntVarP(&l.Lines, "lines", "n", 100, "the last so many lines of each unit; -1 is all that is kept")
	c.Flags().StringVar(&l.machine, "machine", "", "only what was printed on this machine")
	c.Flags().BoolVarP(&l.times, "timestamps", "t", false, "put the time before each line")
	_ = c.RegisterFlagCompletionFunc("machine", a.completeMachines) // fails only for a flag that is not there
	return c
}

// logs prints the logs of units.
func (a *app) logs(ctx context.Context, c *api.Client, units []api.Unit, l logFlags) error {
	name, host := len(units) > 1, len(units) == 1 && len(units[0].Places) > 1
	return track.Logs(ctx, c, units, l.machine, l.LogOptions, func(line api.LogLine) error {
		if a.json {
			return a.printLine(line)
		}
		_, err := fmt.Fprintln(a.Out, l.text(line, name, host))
		return err
	})
}

// text is a line as people read it.
func (l logFlags) text(line api.LogLine, name, host bool) string {
	text := show.LogText(line)
	switch {
	case name:
		text = fmt.Sprintf("%s %s: %s", line.Machine, line.Unit, text)
	case host:
		text = fmt.Sprintf("%s: %s", line.Machine, text)
	}
	if l.times {
		text = line.Time.Local().Format("2006-01-02 15:04:05.000") + " " + text
	}
	return text
}

// newEvents is `flota events`.
func (a *app) newEvents() *cobra.Command {
	var follow bool
	var lines int
	c := &cobra.Command{
		Use:   "events",
		Short: "Tell what happened in the cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Events(cmd.Context(), follow, lines, func(e api.Event) error {
				if a.json {
					return a.printLine(e)
				}
				_, err := fmt.Fprintln(a.Out, show.Event(e))
				return err
			})
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	c.Flags().IntVarP(&lines, "lines", "n", 50, "the last so many; -1 is all that are kept")
	return c
}
