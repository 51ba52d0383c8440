package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/admit"
	"flota/internal/api"
	"flota/internal/cli/show"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/trust"
)

// newTrust is `flota trust`.
func (t *tool) newTrust() *cobra.Command {
	look := &cobra.Command{
		Use: "show", Short: "Show the cluster's authority, how far a change of it is, and where each machine stands", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withAPI(func(c *api.Client) error { return t.showTrust(cmd.Context(), c) })
		},
	}
	return t.parent("trust", "Show and change the authority that machines trust each other by",
		`Show and change the authority that issues the machines' certificates. Certificates renew themselves; nobody needs to do anything for that.
Only root on a machine of the cluster may do this.`, look, t.newRotate())
}

// newRotate is `flota trust rotate`.
func (t *tool) newRotate() *cobra.Command {
	var noBlock bool
	c := &cobra.Command{
		Use: "rotate", Short: "Change the cluster's authority, without anything stopping, and follow it until it is done",
		Long: `Change the cluster's authority while everything goes on, and show each step until it is done. Every machine first learns of the new authority, then gets
a certificate of it, then forgets the old one. Machines that are away are not waited for: they catch up when they come back. Interrupting this
ends only the showing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withAPI(func(c *api.Client) error { return t.rotate(cmd.Context(), c, noBlock) })
		},
	}
	c.Flags().BoolVar(&noBlock, "no-block", false, "return when the change has begun")
	return c
}

// seat is where one machine stands, for programs.
type seat struct {
	ID     machine.ID `json:"id"`
	Name   string     `json:"name"`
	Status string     `json:"status"`
	machine.Standing
}

// shownTrust is what trust show prints for programs.
type shownTrust struct {
	api.Trust
	Machines []seat `json:"machines"`
}

// showTrust prints the authority and where the machines stand.
func (t *tool) showTrust(ctx context.Context, c *api.Client) error {
	now, err := c.Trust(ctx)
	if err != nil {
		return err
	}
	ms, err := c.Machines(ctx)
	if err != nil {
		return err
	}
	out := shownTrust{Trust: now, Machines: []seat{}}
	rows := [][]string{}
	for _, m := range ms {
		out.Machines = append(out.Machines, seat{ID: m.ID, Name: m.Name, Status: m.Status, Standing: m.Standing})
		rows = append(rows, []string{m.Name, m.Status, brief(m.Standing.Issuer), brief(m.Standing.Trusts...), brief(m.Standing.Holds...)})
	}
	if t.JSON() {
		return t.printJSON(out)
	}
	fmt.Fprintf(t.Out, "  cluster: %s\n", now.Cluster)
	for i, h := range now.Authorities {
		fmt.Fprintf(t.Out, "authority: %s (%s)\n", h, part(now.Trust, i))
	}
	fmt.Fprintf(t.Out, "   change: %s\n", progress(now.Trust))
	if x := now.Certificate; x != nil {
		fmt.Fprintf(t.Out, "  expires: %s, the certificate of %s, %s\n", x.Ends.Local().Format(stamp), x.Machine, renewal(*x, time.Now()))
	}
	fmt.Fprintln(t.Out)
	return show.Table(t.Out, show.Flota, []string{"MACHINE", "STATUS", "CERTIFICATE OF", "TRUSTS", "HOLDS KEY OF"}, rows)
}

// renewal says when a certificate is renewed: by itself, at half of its life. Source: trust.Identity.Run.
func renewal(x api.Certificate, now time.Time) string {
	due := x.Made.Add(x.Ends.Sub(x.Made) / 2)
	if now.After(due) {
		return "which should have renewed itself at " + due.Local().Format(stamp)
	}
	return "which renews itself at " + due.Local().Format(stamp) + " at the latest"
}

// part says what the authority at a place in the bundle is for: the first issues. Source: trust.Rotation.
func part(now admit.Trust, i int) string {
	switch {
	case i == 0:
		return "issues certificates"
	case now.Rotation == trust.Spread:
		return "new, is being made known"
	}
	return "old, is trusted until every machine has a new certificate"
}

// brief names authorities by the first eight digits of their hashes.
func brief(hashes ...string) string {
	var out []string
	for _, h := range hashes {
		h = strings.TrimPrefix(h, "sha256:")
		if h = h[:min(len(h), 8)]; h != "" {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ",")
}

// rotationSteps says what a step of a change is.
var rotationSteps = map[trust.Rotation]string{
	trust.Spread:  "step 1 of 3: every machine learns of the new authority",
	trust.Reissue: "step 2 of 3: every machine gets a certificate of the new authority",
	trust.Drop:    "step 3 of 3: every machine forgets the old authority",
}

// progress says how far a change is.
func progress(now admit.Trust) string {
	if now.Rotation == trust.Steady {
		return "none"
	}
	text, ok := rotationSteps[now.Rotation]
	if !ok { // of a newer flota
		text = string(now.Rotation)
	}
	if now.Reason != "" {
		text += " (" + now.Reason + ")"
	}
	return text
}

// rotate begins a change and shows it until it is done.
func (t *tool) rotate(ctx context.Context, c *api.Client, noBlock bool) error {
	now, err := c.RotateTrust(ctx)
	if err != nil {
		return err
	}
	t.rotation(now)
	tick := time.NewTicker(t.poll)
	defer tick.Stop()
	told := ""
	for now.Rotation != trust.Steady && !noBlock {
		select {
		case <-ctx.Done():
			t.note("interrupted; the change goes on without this command: flota trust show tells how far it is")
			return context.Cause(ctx)
		case <-tick.C:
		}
		next, err := c.Trust(ctx)
		switch {
		case ctx.Err() != nil:
			continue
		case fault.Is(err, fault.Unavailable) || fault.Is(err, fault.TimedOut):
			if err.Error() != told { // the change does not depend on who watches it
				told = err.Error()
				t.note("no answer (%s); trying again", told)
			}
			continue
		case err != nil:
			return err
		}
		told = ""
		if progress(next.Trust) != progress(now) {
			t.rotation(next.Trust)
		}
		now = next.Trust
	}
	if noBlock {
		t.note("flota trust show tells how far it is")
		return nil
	}
	if len(now.Authorities) > 0 && !t.JSON() {
		t.note("done: the authority is %s now; command lines that flota token create printed before name the old one: make new ones", now.Authorities[0])
	}
	return nil
}

// rotation tells of one state of a change.
func (t *tool) rotation(now admit.Trust) {
	if t.JSON() {
		_ = t.printLine(now) // the change counts, not its telling
	} else if now.Rotation != trust.Steady {
		t.note("%s", progress(now))
	}
}
