package cluster

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/admit"
	"flota/internal/api"
	"flota/internal/cli/show"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/setting"
	"flota/internal/trust/token"
)

// newToken is `flota token`.
func (t *tool) newToken() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List join tokens, those that expired within the last day too", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withAPI(func(c *api.Client) error { return t.listTokens(cmd.Context(), c) })
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID...", Short: "Revoke join tokens at once; machines that joined with them stay",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: t.completeTokens,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return t.withAPI(func(c *api.Client) error { return t.revokeTokens(cmd.Context(), c, ids) })
		},
	}
	return t.parent("token", "Let new machines join: make, list and revoke join tokens",
		`Make, list and revoke the tokens that new machines join with. Only root on a machine of the cluster may do this.`, t.newTokenCreate(), list, revoke)
}

// defaultTTL is how long a token lives if nothing is said: an hour is enough to walk over to the new machine. Source: the issue; room admit has the same.
const defaultTTL = span(time.Hour)

// newTokenCreate is `flota token create`.
func (t *tool) newTokenCreate() *cobra.Command {
	ttl, uses := defaultTTL, 1
	var labels []string
	c := &cobra.Command{
		Use:   "create",
		Short: "Make a join token and print the command line for the new machine",
		Long: `Make a join token and print, on standard output, the command line to run on the new machine: addresses to join at, the token, and the hash
of the cluster's authority, by which the new machine knows the cluster before it says anything. The token is shown now and never again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if uses < 1 {
				return fault.New(fault.Invalid, "--uses %d: want a number of machines, 1 or more", uses)
			}
			ask := admit.NewToken{TTL: time.Duration(ttl), Uses: uses}
			var err error
			if ask.Labels, err = readLabels(labels); err != nil {
				return err
			}
			return t.withAPI(func(c *api.Client) error { return t.createToken(cmd.Context(), c, ask) })
		},
	}
	f := c.Flags()
	f.Var(&ttl, "ttl", "it expires after this time, such as 30min or 7d")
	f.IntVar(&uses, "uses", 1, "how many machines may join with it")
	f.StringArrayVar(&labels, "label", nil, "k=v that each machine gets which joins with it (repeatable)")
	return c
}

// readLabels reads "k=v" and "k=v,k=v"; nil for none.
func readLabels(list []string) (map[string]string, error) {
	var out map[string]string
	for _, s := range list {
		for one := range strings.SplitSeq(s, ",") {
			k, v, err := machine.ParseLabel(one)
			if err != nil {
				return nil, err
			}
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out, nil
}

// made is a new token for programs.
type made struct {
	ID      string            `json:"id"`
	Token   string            `json:"token"`
	CAHash  string            `json:"caHash"`
	Join    []string          `json:"join"`
	Command string            `json:"command"`
	Expires time.Time         `json:"expires"`
	Uses    int               `json:"uses"`
	Labels  map[string]string `json:"labels"`
	Note    string            `json:"note,omitempty"`
}

// createToken makes a token and prints the command line, alone on standard output, so that it can be copied or run.
func (t *tool) createToken(ctx context.Context, c *api.Client, ask admit.NewToken) error {
	m, err := c.CreateToken(ctx, ask)
	if err != nil {
		return err
	}
	if t.JSON() {
		out := made{ID: m.Token.ID, Token: m.Text, CAHash: m.CAHash, Join: m.Join, Command: m.Command, Expires: m.Token.Expires, Uses: m.Token.Uses,
			Labels: map[string]string{}, Note: m.Note}
		maps.Copy(out.Labels, m.Token.Labels)
		return t.printJSON(out)
	}
	gets := ""
	if len(m.Token.Labels) > 0 {
		gets = ", labelled " + machine.PrintLabels(m.Token.Labels)
	}
	t.note("run this as root on %s, until %s%s; it is shown only now:", newMachines(m.Token.Uses), m.Token.Expires.Local().Format(stamp), gets)
	if _, err := fmt.Fprintln(t.Out, m.Command); err != nil {
		return err
	}
	if m.Note != "" {
		t.note("%s", m.Note)
	}
	return nil
}

// stamp is how a moment is shown.
const stamp = "2006-01-02 15:04:05 MST"

// newMachines is how many machines may join.
func newMachines(n int) string {
	if n == 1 {
		return "one new machine"
	}
	return fmt.Sprintf("up to %d new machines", n)
}

// listTokens prints all tokens.
func (t *tool) listTokens(ctx context.Context, c *api.Client) error {
	all, err := c.Tokens(ctx)
	if err != nil {
		return err
	}
	if t.JSON() {
		if all == nil {
			all = []token.Token{}
		}
		return t.printJSON(all)
	}
	now := time.Now()
	rows := [][]string{}
	for _, x := range all {
		rows = append(rows, []string{x.ID, fmt.Sprintf("%d of %d", len(x.Used), len(x.Used)+x.Uses), show.Ago(x.Created, now), tokenState(x, now), machine.PrintLabels(x.Labels)})
	}
	return show.Table(t.Out, show.Flota, []string{"ID", "USED", "CREATED", "STATE", "LABELS"}, rows)
}

// tokenState says what a token still is good for.
func tokenState(x token.Token, now time.Time) string {
	switch {
	case x.Uses <= 0:
		return "used up"
	case x.Expired(now):
		return "expired " + show.Ago(x.Expires, now)
	}
	left := x.Expires.Sub(now) + time.Second - 1 // a token of 1h, just made, expires in 1h
	return "expires in " + show.Span(left.Truncate(time.Second))
}

// revokeTokens ends tokens, named by id; who gives the whole token means its id, and its secret goes nowhere.
func (t *tool) revokeTokens(ctx context.Context, c *api.Client, ids []string) error {
	for _, id := range ids {
		if s, err := token.Parse(id); err == nil {
			id = s.ID
		}
		if err := c.RevokeToken(ctx, id); err != nil {
			return fmt.Errorf("revoke %s: %w", id, err)
		}
		t.note("%s: revoked", id)
	}
	return nil
}

// completePatience bounds what a completion may take.
const completePatience = time.Second

// completeTokens completes the ids of tokens, with what each is good for.
func (t *tool) completeTokens(cmd *cobra.Command, had []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
	defer cancel()
	given := map[string]bool{}
	for _, id := range had {
		given[id] = true
	}
	_ = t.withAPI(func(c *api.Client) error { // without an answer there is nothing to choose from
		all, err := c.Tokens(ctx)
		for _, x := range all {
			if !given[x.ID] {
				out = append(out, x.ID+"\t"+tokenState(x, time.Now()))
			}
		}
		return err
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}

// span is a flag that takes systemd's time spans, above 0. It implements pflag.Value.
type span time.Duration

// Set reads a span.
func (s *span) Set(text string) error {
	d, err := setting.Span(text)
	if err == nil && (d <= 0 || d == setting.Infinity) {
		err = fault.New(fault.Invalid, "want a time above 0, such as 30min")
	}
	*s = span(d)
	return err
}

// String prints the span.
func (s *span) String() string { return setting.PrintSpan(time.Duration(*s)) }

// Type names the kind of value in help.
func (s *span) Type() string { return "time" }
