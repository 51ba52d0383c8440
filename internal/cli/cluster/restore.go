package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"flota/internal/backup"
	"flota/internal/cli/show"
	"flota/internal/fault"
	"flota/internal/machine"
)

// newRestore is `flota restore`.
func (t *tool) newRestore() *cobra.Command {
	var k keyFlags
	var o backup.RestoreOptions
	var addr string
	c := &cobra.Command{
		Use: "restore FILE", Short: "Make the first machine of a new cluster out of a backup",
		Long: `Make the data directory of the first machine of a new cluster out of a backup ("-" is standard input), with the old cluster's memory and authority.
No cluster is asked or touched, and nothing is overwritten: the directory must be empty, or not there. flota up starts the machine, and the others
join it. See backup.md for what is kept.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.fill(&o, addr); err != nil {
				return err
			}
			return t.withBackup(cmd.Context(), args[0], k, "read", func(r io.Reader, keys backup.Keys) error {
				return t.restore(cmd.Context(), r, keys, o)
			})
		},
	}
	k.add(c)
	f := c.Flags()
	f.StringVar(&o.DataDir, "data-dir", t.DataDir, "where everything of the machine is to lie")
	f.StringVar(&o.Name, "name", "", "name of the machine (default: the host's name)")
	f.StringVar(&addr, "addr", "", "IP address that other machines will reach this one by (default: the one that leads off this host)")
	f.BoolVar(&o.KeepMachines, "keep-machines", false, "keep the other machines and their places: they are still there and come back by themselves")
	_ = c.MarkFlagDirname("data-dir") // it is there
	return c
}

// selfFile and self are what flota up remembers of its machine. Source: room daemon, self.go.
const selfFile = "machine.json"

type self struct {
	Name string `json:"name"`
	Addr string `json:"addr"`
}

// fill completes the options. fault.Invalid for what cannot be.
func (t *tool) fill(o *backup.RestoreOptions, addr string) error {
	if o.Name == "" {
		host, _ := os.Hostname() // an empty name is refused below
		o.Name, _, _ = strings.Cut(strings.ToLower(host), ".")
	}
	if err := machine.CheckName(o.Name); err != nil {
		return fault.WithHint(err, "choose one with --name")
	}
	if addr == "" {
		addr = ownAddr()
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return fault.New(fault.Invalid, "--addr %q: want an IP address", addr)
	}
	if ip.IsUnspecified() || ip.IsMulticast() {
		return fault.New(fault.Invalid, "--addr %s: want the one address of this machine that others reach it by", addr)
	}
	b, err := json.Marshal(self{Name: o.Name, Addr: addr})
	if err != nil {
		return err
	}
	o.Files = map[string][]byte{selfFile: append(b, '\n')}
	o.PeerAddr = net.JoinHostPort(addr, strconv.Itoa(t.PeerPort))
	o.Log = slog.New(slog.DiscardHandler) // errors are returned
	return nil
}

// ownAddr is the address that packets which leave this host come from; loopback if there is no way off it. Nothing is sent: the other ends are
// addresses kept for documentation.
func ownAddr() string {
	for _, far := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", far)
		if err != nil {
			continue
		}
		a, ok := c.LocalAddr().(*net.UDPAddr)
		c.Close()
		if ok && !a.IP.IsUnspecified() && !a.IP.IsLoopback() {
			return a.AddrPort().Addr().Unmap().WithZone("").String()
		}
	}
	return "127.0.0.1"
}

// restored is a restored machine, for programs.
type restored struct {
	backup.Restored
	Name    string `json:"name"`
	DataDir string `json:"dataDir"`
}

// restore makes the directory and says how to go on.
func (t *tool) restore(ctx context.Context, r io.Reader, keys backup.Keys, o backup.RestoreOptions) error {
	res, err := backup.Restore(ctx, r, keys, o)
	if err != nil {
		return err
	}
	if t.JSON() {
		return t.printJSON(restored{Restored: res, Name: o.Name, DataDir: o.DataDir})
	}
	fmt.Fprintf(t.Out, "%s holds machine %s (%s) of cluster %s, epoch %d, as it was at %s.\n", o.DataDir, o.Name, res.Machine.Short(), res.Manifest.Cluster, res.Epoch,
		res.Manifest.Created.Local().Format(stamp))
	if kept := left(res); len(kept) > 0 {
		fmt.Fprintf(t.Out, "kept: %s\n", strings.Join(kept, ", "))
	}
	if gone := counts(res.Dropped); len(gone) > 0 {
		fmt.Fprintf(t.Out, "not kept: %s\n", strings.Join(gone, ", "))
	}
	fmt.Fprintf(t.Out, "\nnext:\n  %s\n", upLine(o.DataDir, t.DataDir))
	if o.KeepMachines {
		fmt.Fprintln(t.Out, "  flota status                      the other machines come back by themselves")
	} else {
		fmt.Fprintln(t.Out, "  flota token create --uses N       prints what to run on each other machine")
		fmt.Fprintln(t.Out, "  flota rebalance                   when they are there")
	}
	if res.Census.Tables["flota/keytokens/"] > 0 {
		fmt.Fprintln(t.Out, "  flota key token list              access tokens are as in the backup: revoke again what was revoked since")
	}
	return nil
}

// upLine is the command line that starts the machine.
func upLine(dir, usual string) string {
	if dir == usual {
		return "flota up"
	}
	if strings.ContainsAny(dir, " \t\n'\"\\$&;|<>()*?[]#~`!{}") {
		dir = "'" + strings.ReplaceAll(dir, "'", `'\''`) + "'"
	}
	return "flota up --data-dir " + dir
}

// left counts what is in the new cluster, by table.
func left(res backup.Restored) []string {
	all := map[string]int{}
	for table, n := range res.Census.Tables {
		if rest := int(n) - res.Dropped[table]; rest > 0 {
			all[table] = rest
		}
	}
	return counts(all)
}

// tableWords says what the keys of a table are; tables that are not here tell a person nothing.
var tableWords = []struct{ prefix, word string }{
	{"flota/units/", "unit"}, {"flota/machines/", "machine"}, {"flota/places/", "place"}, {"user/", "key"},
	{"flota/keytokens/", "access token"}, {"flota/tokens/", "join token"}, {"flota/removed/", "removed machine"},
}

// counts prints numbers of keys by table, in words: "3 units".
func counts(tables map[string]int) (out []string) {
	for _, w := range tableWords {
		if n := tables[w.prefix]; n > 0 {
			out = append(out, show.Count(n, w.word))
		}
	}
	return out
}
