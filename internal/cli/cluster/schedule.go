package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/backup"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/setting"
)

// newSchedule is `flota backup schedule`.
func (t *tool) newSchedule() *cobra.Command {
	var every pause
	var keep int
	var recipients []string
	var plain bool
	c := &cobra.Command{
		Use: "schedule", Short: "Show or set how often voters keep a copy on their own disks, how many, and to whom encrypted",
		Long: `Show how each voter keeps copies of what the cluster remembers in backups/ of its data directory, or set it: what no flag names stays as it is.
Voters heed a change within a minute. Only root on a machine of the cluster may do this.`,
		Example: "  flota backup schedule --every 6h --keep 8 --recipient age1…\n  flota backup schedule --every never",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := cmd.Flags().Changed
			if given("keep") && keep < 1 {
				return fault.WithHint(fault.New(fault.Invalid, "--keep %d: want 1 or more", keep), "--every never keeps no further ones")
			}
			if plain && given("recipient") {
				return fault.New(fault.Invalid, "want one of --recipient and --plain")
			}
			if err := backup.CheckRecipients(recipients); err != nil {
				return err
			}
			change := func(b *machine.Backup) {
				if given("every") {
					b.Every = time.Duration(every)
				}
				if given("keep") {
					b.Keep = keep
				}
				if plain || given("recipient") {
					b.Recipients = recipients
				}
			}
			if !given("every") && !given("keep") && !given("recipient") && !plain {
				change = nil
			}
			return t.withAPI(func(c *api.Client) error { return t.schedule(cmd.Context(), c, change) })
		},
	}
	f := c.Flags()
	f.Var(&every, "every", "a copy after each such time, 1min or more, or never")
	f.IntVar(&keep, "keep", 0, "how many of the newest copies stay on each voter")
	f.StringArrayVar(&recipients, "recipient", nil, "encrypt to this age recipient, age1…, in place of those before (repeatable)")
	f.BoolVar(&plain, "plain", false, "do not encrypt any more: readable for root, as the store on the same disk is")
	return c
}

// schedule changes the schedule (nil: not at all) and shows it.
func (t *tool) schedule(ctx context.Context, c *api.Client, change func(*machine.Backup)) error {
	b, err := c.BackupSchedule(ctx)
	if err == nil && change != nil {
		change(&b)
		b, err = c.SetBackupSchedule(ctx, b)
	}
	if err != nil {
		return err
	}
	if b.Every == 0 {
		b.Every = backup.EveryDefault
	}
	if b.Keep == 0 {
		b.Keep = backup.KeepDefault
	}
	if t.JSON() {
		return t.printJSON(b)
	}
	if b.Every < 0 {
		_, err = fmt.Fprintln(t.Out, "    every: never; copies that are there stay")
		return err
	}
	fmt.Fprintf(t.Out, "    every: %s\n     keep: the newest %d on each voter\n", setting.PrintSpan(b.Every), b.Keep)
	for _, r := range b.Recipients {
		fmt.Fprintf(t.Out, "encrypted: to %s\n", r)
	}
	if len(b.Recipients) == 0 {
		_, err = fmt.Fprintln(t.Out, "encrypted: no; readable for root, as the store on the same disk is")
	}
	return err
}

// pause is a flag that takes systemd's time spans, above 0, or "never", which is negative. It implements pflag.Value.
type pause time.Duration

// Set reads a pause.
func (p *pause) Set(text string) error {
	if text == "never" {
		*p = -1
		return nil
	}
	d, err := setting.Span(text)
	if err == nil && (d <= 0 || d == setting.Infinity) {
		err = fault.New(fault.Invalid, "want a time above 0, such as 6h, or never")
	}
	*p = pause(d)
	return err
}

// String prints the pause; "" for none given.
func (p *pause) String() string {
	switch {
	case *p == 0:
		return ""
	case *p < 0:
		return "never"
	}
	return setting.PrintSpan(time.Duration(*p))
}

// Type names the kind of value in help.
func (p *pause) Type() string { return "time" }
