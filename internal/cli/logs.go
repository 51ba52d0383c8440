package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/show"
	"flota/internal/driver"
	"flota/internal/fault"
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

// logs prints the logs of units. Without -f all lines are collected and sorted; with it they come as they come.
func (a *app) logs(ctx context.Context, c *api.Client, units []api.Unit, l logFlags) error {
	var mu sync.Mutex // guards all and standard output
	var all []api.LogLine
	name := len(units) > 1
	host := len(units) == 1 && len(units[0].Places) > 1
	write := func(line api.LogLine) error {
		if a.json {
			return a.printLine(line)
		}
		_, err := fmt.Fprintln(a.Out, l.text(line, name, host))
		return err
	}
	errs := make([]error, len(units))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64) // streams at once; following needs one for each unit
	if l.Follow && len(units) > cap(slots) {
		return fault.WithHint(fault.New(fault.Invalid, "%d units are too many to follow at once: the limit is %d", len(units), cap(slots)), "choose fewer")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, u := range units {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = c.Logs(ctx, string(u.Name), l.machine, l.LogOptions, func(line api.LogLine) error {
				mu.Lock()
				defer mu.Unlock()
				if l.Follow || len(units) == 1 {
					return write(line)
				}
				all = append(all, line)
				return nil
			})
			if errs[i] != nil && l.Follow {
				cancel() // one stream is broken: say so rather than be silent about that unit
			}
		})
	}
	wg.Wait()
	slices.SortStableFunc(all, func(x, y api.LogLine) int { return x.Time.Compare(y.Time) })
	for _, line := range all {
		if err := write(line); err != nil {
			return err
		}
	}
	return firstReal(errs)
}

// firstReal gives the first error that is more than the end of the others.
func firstReal(errs []error) error {
	var canceled error
	for _, err := range errs {
		if errors.Is(err, context.Canceled) {
			canceled = err
		} else if err != nil {
			return err
		}
	}
	return canceled
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
