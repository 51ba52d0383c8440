package keycmd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flota/internal/api"
	"flota/internal/cli/show"
	"flota/internal/fault"
	"flota/internal/keys/token"
)

// newToken is `flota key token`.
func (k *keys) newToken() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Make, list and revoke tokens that open keys", Args: cobra.ArbitraryArgs, RunE: k.Help,
		Long: `Make, list and revoke tokens that open keys. They count where flota up runs with --keys-auth. Only root on a machine of the cluster may do this.`}
	list := &cobra.Command{Use: "list", Short: "List tokens, those that expired within the last day too", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return k.withAPI(func(c *api.Client) error { return k.listTokens(cmd.Context(), c) })
		}}
	revoke := &cobra.Command{Use: "revoke ID...", Short: "Revoke tokens: they open nothing any more within a second", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return k.withAPI(func(c *api.Client) error {
				for _, id := range ids {
					if err := c.RevokeKeyToken(cmd.Context(), id); err != nil {
						return fmt.Errorf("revoke %s: %w", id, err)
					}
					k.note("%s: revoked", id)
				}
				return nil
			})
		}}
	c.AddCommand(k.newTokenCreate(), list, revoke)
	return c
}

// withAPI does something with a client of the cluster.
func (k *keys) withAPI(do func(*api.Client) error) error {
	c, err := k.API()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// newTokenCreate is `flota key token create`.
func (k *keys) newTokenCreate() *cobra.Command {
	var prefixes []string
	var all, read, write bool
	var ttl span
	var note string
	c := &cobra.Command{
		Use:   "create --prefix KEY --read|--write",
		Short: "Make a token; its secret is printed now and never again",
		Long: `Make a token that opens a key and all keys below it, and print it on standard output: now and never again. --read lets it read, --write read and change.
A program brings it as bearer token, or as user and password: the user is the token's id, the digits between flk_ and the next _.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ask := api.MakeKeyToken{Note: note, TTLSeconds: ttl.seconds()}
			switch {
			case read == write:
				return fault.New(fault.Invalid, "say either --read or --write")
			case all == (len(prefixes) > 0):
				return fault.WithHint(fault.New(fault.Invalid, "say which keys it opens"), "either --prefix KEY, which may be repeated, or --all")
			case all:
				ask.Prefixes = []token.Prefix{{Path: "", Write: write}}
			}
			for _, p := range prefixes {
				if p == "" {
					return fault.WithHint(fault.New(fault.Invalid, "an empty prefix"), "--all opens all keys")
				}
				ask.Prefixes = append(ask.Prefixes, token.Prefix{Path: k.dir(p), Write: write})
			}
			return k.withAPI(func(c *api.Client) error { return k.createToken(cmd.Context(), c, ask) })
		},
	}
	f := c.Flags()
	f.StringSliceVar(&prefixes, "prefix", nil, "this key and all keys below it (repeatable); / is all keys with a leading /")
	f.BoolVar(&all, "all", false, "all keys, those without a leading / too")
	f.BoolVar(&read, "read", false, "may read")
	f.BoolVar(&write, "write", false, "may read and change")
	f.Var(&ttl, "ttl", "it expires after this time, such as 8h or 90d (default: never)")
	f.StringVar(&note, "note", "", "what it is for")
	return c
}

// createToken makes a token and prints it.
func (k *keys) createToken(ctx context.Context, c *api.Client, ask api.MakeKeyToken) error {
	m, err := c.MakeKeyToken(ctx, ask)
	if err != nil {
		return err
	}
	if k.JSON() {
		return k.printJSON(m)
	}
	k.note("token %s %s, %s; it is shown only now:", m.ID, opens(m.Token), expires(m.Token, time.Now()))
	_, err = fmt.Fprintln(k.Out, m.Secret)
	return err
}

// opens says what a token opens.
func opens(t token.Token) string {
	var parts []string
	for _, p := range t.Prefixes {
		verb, path := "reads ", p.Path
		if p.Write {
			verb = "writes "
		}
		if path == "" {
			path = "all keys"
		}
		parts = append(parts, verb+printable([]byte(path)))
	}
	return strings.Join(parts, ", ")
}

// expires says until when a token counts.
func expires(t token.Token, now time.Time) string {
	switch {
	case t.Expires.IsZero():
		return "never expires"
	case t.Expired(now):
		return "expired " + show.Ago(t.Expires, now)
	}
	left := t.Expires.Sub(now) + time.Second - 1 // a token of 8h, just made, expires in 8h
	return "expires in " + show.Span(left.Truncate(time.Second))
}

// listTokens prints all tokens.
func (k *keys) listTokens(ctx context.Context, c *api.Client) error {
	all, err := c.KeyTokens(ctx)
	if err != nil {
		return err
	}
	if k.JSON() {
		if all == nil {
			all = []token.Token{}
		}
		return k.printJSON(all)
	}
	now := time.Now()
	rows := [][]string{}
	for _, t := range all {
		note := t.Note
		if note == "" {
			note = "-"
		}
		rows = append(rows, []string{t.ID, opens(t), show.Ago(t.Created, now), expires(t, now), printable([]byte(note))})
	}
	return show.Table(k.Out, show.Flota, []string{"ID", "OPENS", "CREATED", "EXPIRES", "NOTE"}, rows)
}
