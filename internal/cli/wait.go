package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/pick"
	"flota/internal/cli/show"
	"flota/internal/cli/track"
	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/setting"
	"flota/internal/unit"
)

// lastLines of a failed unit's log are shown, for at most shownLogs units.
const lastLines, shownLogs = 10, 5

// waitFlags are the flags of commands that wait.
type waitFlags struct {
	noBlock bool
	timeout span // 0: the default
}

func (w *waitFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&w.noBlock, "no-block", false, "return when the request is taken, without waiting for what comes of it")
	c.Flags().Var(&w.timeout, "timeout", "how long to wait, such as 30s or infinity (default: 30s, and the unit's own TimeoutStartSec= and TimeoutStopSec=)")
}

// span is a flag that takes systemd's time spans. It implements pflag.Value.
type span time.Duration

// Set reads a span above 0.
func (s *span) Set(text string) error {
	d, err := setting.Span(text)
	if err == nil && d == 0 {
		err = fault.New(fault.Invalid, "want a time above 0, or infinity")
	}
	*s = span(d)
	return err
}

// String prints the span; "" for the default.
func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return setting.PrintSpan(time.Duration(*s))
}

// Type names the kind of value in help.
func (s *span) Type() string { return "time" }

// destroy is the verb that goes on after its units are unloaded.
const destroy = "destroy"

// follow makes the requests and shows what happens until all units are what they shall be. The error tells of those that are not.
func (a *app) follow(ctx context.Context, c *api.Client, verb string, goal track.Goal, reqs []track.Request, w waitFlags) error {
	if len(reqs) == 0 {
		return nil
	}
	names := make([]unit.Name, len(reqs))
	for i, r := range reqs {
		names[i] = r.Name
	}
	p := a.newPrinter(len(reqs))
	if w.noBlock {
		return a.ask(ctx, verb, reqs, p)
	}
	t := track.New(goal, names, time.Duration(w.timeout), func(s track.Step) {
		if s.Kind != track.Done || verb != destroy { // which goes on, and says so itself
			p.Step(s)
		}
	})
	err := t.Run(ctx, c, reqs, func(err error) { a.progress("the connection is lost (%v); trying again", err) })
	p.End()
	if err != nil {
		if ctx.Err() != nil {
			a.progress("interrupted; what was asked for goes on without this command")
		}
		return err
	}
	a.showLogs(ctx, c, p.Failed)
	return failures(verb, len(reqs), p.Failed)
}

// ask makes requests without waiting for what comes of them.
func (a *app) ask(ctx context.Context, verb string, reqs []track.Request, p *show.Progress) error {
	err := pick.Each(len(reqs), func(i int) error {
		_, err := reqs[i].Do(ctx)
		if err != nil {
			return fmt.Errorf("%s %s: %w", verb, reqs[i].Name, err)
		}
		return nil
	})
	if err == nil {
		for _, r := range reqs {
			p.Step(track.Step{Unit: r.Name, Kind: track.Done, Text: verb + " was asked for"})
		}
	}
	p.End()
	return err
}

// failures is the error of units that did not get there; nil for none.
func failures(verb string, of int, failed []track.Step) error {
	if len(failed) == 0 {
		return nil
	}
	first := failed[0]
	if of == 1 {
		return fault.WithHint(fault.New(fault.KindOf(first.Err), "%s %s: %s", verb, first.Unit, strings.TrimPrefix(first.Text, string(first.Unit)+" ")),
			"%s", orDefault(fault.Hint(first.Err), "flota why "+string(first.Unit)+" tells more"))
	}
	kind := fault.KindOf(first.Err)
	for _, s := range failed {
		if fault.KindOf(s.Err) != kind {
			kind = fault.Failed
		}
	}
	return fault.WithHint(fault.New(kind, "%s: %d of %d units did not get there, the first is %s: %s", verb, len(failed), of, first.Unit, first.Text),
		"flota why %s tells more", first.Unit)
}

// orDefault is text, or other if it is empty.
func orDefault(text, other string) string {
	if text != "" {
		return text
	}
	return other
}

// showLogs prints the last lines of units that failed on a machine.
func (a *app) showLogs(ctx context.Context, c *api.Client, failed []track.Step) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	shown := 0
	for _, s := range failed {
		if s.Machine == "" || shown == shownLogs {
			continue
		}
		shown++
		head := fmt.Sprintf("last lines of %s on %s:\n", s.Unit, s.Machine)
		_ = c.Logs(ctx, string(s.Unit), s.Machine, driver.LogOptions{Lines: lastLines}, func(l api.LogLine) error { // the failure counts, not its log
			fmt.Fprintf(a.Err, "%s  %s\n", head, show.Log(l, false))
			head = ""
			return nil
		})
	}
}

// newPrinter prints on standard output, or on standard error when that is for JSON.
func (a *app) newPrinter(total int) *show.Progress {
	out := a.Out
	if a.json {
		out = a.Err
	}
	return show.NewProgress(out, total, isTerminal(out))
}
