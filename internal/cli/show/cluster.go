package show

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"flota/internal/api"
)

// stateOrder is how units by state are listed; others follow by name.
var stateOrder = []string{"active", "activating", "reloading", "deactivating", "waiting", "failed", "inactive"}

// Glance writes the cluster at a glance: what wants attention, and what would make it better, last, so that it stands above the prompt.
func Glance(w io.Writer, s api.Status) error {
	there := 0
	for _, m := range s.Machines {
		if m.Presence != nil {
			there++
		}
	}
	machines := Count(len(s.Machines), "machine")
	if there < len(s.Machines) {
		machines = fmt.Sprintf("%d of %s", there, machines)
	}
	fmt.Fprintf(w, "%s, %s, %s\n", machines, leads(s), quorum(s))
	if s.Stale {
		fmt.Fprintln(w, "this answer was read without a quorum and may be old")
	}
	fmt.Fprintln(w)
	cols := Machines(Flota)
	cols.Usual = []string{"machine", "ip", "status", "role", "units", "metadata"}
	if err := cols.List(w, Options{}, s.Machines); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nunits: %s\n", tally(s.Units))
	if len(s.Attention) > 0 {
		fmt.Fprintln(w, "\nwants attention:")
		for _, a := range s.Attention {
			fmt.Fprintf(w, "  %s\n", a)
		}
	}
	for _, a := range s.Advice {
		fmt.Fprintf(w, "\nadvice: %s\n", a)
	}
	return nil
}

// leads says who leads.
func leads(s api.Status) string {
	if s.Leader == "" {
		return "no leader"
	}
	return s.Leader + " leads"
}

// quorum says how the store is.
func quorum(s api.Status) string {
	voters := 0
	for _, m := range s.Store.Members {
		if !m.Learner {
			voters++
		}
	}
	what := Count(voters, "voter")
	if s.External {
		what = Count(voters, "member") + " of your own etcd, which flota does not manage"
	}
	text := "quorum of " + what
	if !s.Store.Quorum {
		text = "NO QUORUM of " + what
	}
	if s.Store.Trouble != "" {
		text += " (" + s.Store.Trouble + ")"
	}
	return text
}

// tally counts units by state.
func tally(units map[string]int) string {
	order := slices.Clone(stateOrder)
	for _, k := range slices.Sorted(maps.Keys(units)) {
		if !slices.Contains(order, k) {
			order = append(order, k)
		}
	}
	var out []string
	for _, k := range order {
		if units[k] > 0 {
			out = append(out, fmt.Sprintf("%d %s", units[k], k))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}
