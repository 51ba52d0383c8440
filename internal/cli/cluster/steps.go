package cluster

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/show"
	"flota/internal/fault"
)

// step tells of one step of something that takes a while: to a person beside the output, or to a program as a line of it.
func (t *tool) step(text string) {
	if t.JSON() {
		_ = t.printLine(api.Step{Text: text}) // the work counts, not its telling
		return
	}
	t.note("%s", text)
}

// newRemove is `flota machine remove`.
func (t *tool) newRemove() *cobra.Command {
	var q api.Remove
	c := &cobra.Command{
		Use: "remove MACHINE...", Short: "Take machines out of the cluster for good",
		Long: `Take machines out of the cluster for good, one after the other: each one's units start on other machines first, then its vote moves, then its
certificate stops working, and then it is forgotten. A machine that is gone is forgotten at once. It is refused if it would break the quorum; the error says how.`,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: t.Machines,
		RunE: func(cmd *cobra.Command, names []string) error {
			return t.withAPI(func(c *api.Client) error {
				for _, n := range names {
					if err := t.remove(cmd.Context(), c, n, q); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&q.Force, "force", false, "wait neither for units nor long for the vote, and do it even if that breaks the quorum")
	c.Flags().StringVar(&q.Reason, "reason", "", "why, for the record; the machine itself is told it too")
	return c
}

// remove takes one machine out.
func (t *tool) remove(ctx context.Context, c *api.Client, name string, q api.Remove) error {
	err := c.RemoveMachine(ctx, name, q, t.step)
	if err != nil && ctx.Err() != nil {
		t.note("interrupted: %s stays drained and leaving; the same command goes on with it, and flota machine resume %s takes it back", name, name)
	}
	return again(err)
}

// newLeave is `flota leave`.
func (t *tool) newLeave() *cobra.Command {
	var yes bool
	var q api.Remove
	c := &cobra.Command{
		Use: "leave", Short: "Take this machine out of its cluster for good",
		Long: `Take the machine that this is run on out of its cluster for good: its units start on other machines first, then its vote moves, then its
certificate stops working. It is refused if it would break the quorum; the error says how. Only root on the machine itself may do this; from
another machine it is flota machine remove. To end flota for a while, stop flota up instead.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.mayAsk(yes); err != nil {
				return err
			}
			return t.withAPI(func(c *api.Client) error { return t.leave(cmd.Context(), c, q, yes) })
		},
	}
	c.Flags().BoolVar(&q.Force, "force", false, "wait neither for units nor long for the vote, and do it even if that breaks the quorum")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// leave takes the machine that answers out.
func (t *tool) leave(ctx context.Context, c *api.Client, q api.Remove, yes bool) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if !yes {
		t.note("%s", leaving(st, q.Force))
	}
	if err := t.confirm(ctx, yes, fmt.Sprintf("Take %s out of the cluster?", st.Answered)); err != nil {
		return err
	}
	err = c.Leave(ctx, q, t.step)
	if err != nil && ctx.Err() != nil {
		t.note("interrupted: %s stays drained and leaving; flota leave goes on with it, and flota machine resume %s takes it back", st.Answered, st.Answered)
	}
	if err != nil {
		return again(err)
	}
	t.note("to use this machine again move its data directory away, and join with what flota token create prints on another machine")
	return nil
}

// leaving says what happens when the machine that answers leaves.
func leaving(st api.Status, force bool) string {
	units, others := 0, 0
	for _, m := range st.Machines {
		switch {
		case m.Name == st.Answered:
			units = m.Units
		case m.Presence != nil:
			others++
		}
	}
	var text []string
	switch {
	case others == 0:
		text = append(text, "No other machine of the cluster is there.")
	case units > 0 && force:
		text = append(text, fmt.Sprintf("--force does not wait until its %s run elsewhere.", show.Count(units, "unit")))
	case units > 0:
		text = append(text, fmt.Sprintf("Its %s start on other machines first.", show.Count(units, "unit")))
	}
	text = append(text, "Its certificate stops working: it can come back only as a new machine.")
	return strings.Join(text, "\n")
}

// newRecover is `flota recover`.
func (t *tool) newRecover() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "recover", Short: "Go on from this machine's copy after most voters were lost for good",
		Long: `Make a working cluster with one voter out of the copy of the store that this machine has. This is only for when most voters are lost for good:
if they can be started again, start them instead. Only root on the machine itself may do this, and on one machine only.

Units, machines and places are kept as they are in this copy, and nothing that runs is stopped. What was changed in the last moments before the loss
may be missing. Machines that hold no copy find this one by themselves and go on. Other voters set their copies aside when they come back, and
vote again when they are needed. Machines that never come back are removed with flota machine remove.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.mayAsk(yes); err != nil {
				return err
			}
			return t.withAPI(func(c *api.Client) error { return t.recover(cmd.Context(), c, yes) })
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// recover makes the machine that answers the only voter.
func (t *tool) recover(ctx context.Context, c *api.Client, yes bool) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if st.Store.Quorum {
		return fault.WithHint(fault.New(fault.Conflict, "the store has a quorum of its voters: there is nothing to recover"), "flota status shows the voters")
	}
	if !yes {
		t.note("This makes a cluster with one voter, %s, out of the copy of the store that it has. It is only for when most voters are lost for good:\n"+
			"if they can be started again, start them instead. Changes of the last moments before the loss may be missing. What runs goes on running.\n"+
			"Other voters set their copies aside when they come back. Do this on one machine only.", st.Answered)
	}
	if err := t.confirm(ctx, yes, fmt.Sprintf("Recover from the copy of %s?", st.Answered)); err != nil {
		return err
	}
	err = c.Recover(ctx, api.Recover{}, t.step)
	if err != nil && ctx.Err() != nil {
		t.note("interrupted; the recovery goes on without this command: flota status shows what became of it")
	}
	if err != nil {
		return again(err)
	}
	t.note("flota status shows which machines are there; remove those that never come back: flota machine remove NAME")
	return nil
}
