// Package machine holds what the cluster knows of a Linux host that runs `flota up`: who it is
// (Machine, kept until removed) and that it is there (Presence, dies with its lease).
//
// Pure values: no clock, no disk, no network. Start reading at Machine and Presence.
package machine

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
)

// ID identifies a machine for its whole life: 32 lower-case hex digits, made when the data directory is made.
// The zero value means "no machine".
type ID string

// idForm is the form of an ID; systemd's machine-id has the same.
var idForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// ParseID checks s to be 32 lower-case hex digits. Errors are fault.Invalid.
func ParseID(s string) (ID, error) {
	if !idForm.MatchString(s) {
		return "", fault.New(fault.Invalid, "machine id %q is not 32 lower-case hex digits", s)
	}
	return ID(s), nil
}

// Short is the first eight digits, as fleet printed them.
func (id ID) Short() string {
	if len(id) < 8 {
		return string(id)
	}
	return string(id[:8])
}

// Machine is what is remembered of a machine while it is away. Stored at machines/<id>; the api writes it.
type Machine struct {
	ID   ID     `json:"id"`
	Name string `json:"name"` // unique in the cluster, what people type
	// Labels set through the API (flota machine label, fleet's PATCH). A label set to "" hides one that
	// the machine itself brings in its Presence.
	Labels map[string]string `json:"labels,omitempty"`
	// Drained machines keep running but get no units; set by `flota machine drain`, cleared by resume.
	Drained bool      `json:"drained,omitempty"`
	Joined  time.Time `json:"joined"`
	Voter   bool      `json:"voter,omitempty"` // holds a copy of the store and votes; not stored: the api takes it from the votes
	// Learner holds a copy of the store and does not vote; not stored, like Voter.
	Learner bool `json:"learner,omitempty"`
	// Witness only ever votes: no unit is placed on it.
	Witness bool `json:"witness,omitempty"`
	// Key is the SHA-256 of the public key (PKIX form, hex) that the machine was admitted with; only it may have a certificate for this ID.
	Key string `json:"key,omitempty"`
	// Token is the ID of the join token that admitted it; a machine that repeats its request with the same token and key is the same one.
	Token string `json:"token,omitempty"`
	// Leaving: the machine is being removed, so its vote is to be taken elsewhere; Drained is set with it. `flota machine resume` clears both.
	Leaving bool `json:"leaving,omitempty"`
	// Left: the machine has left by itself and waits for nothing more; a voter moves it to removed/. The machine's last write.
	Left bool `json:"left,omitempty"`
	// Standing is what the machine said of its certificates when it last asked for one.
	Standing Standing `json:"standing,omitzero"`
}

// Standing is what a machine holds of the cluster's authorities, each named by the hash that `--ca-hash` takes. A change of the authority waits
// for the machines by it.
type Standing struct {
	Trusts []string `json:"trusts,omitempty"` // it accepts certificates of these, the issuing one first
	Issuer string   `json:"issuer,omitempty"` // the one that issued the certificate it uses
	Holds  []string `json:"holds,omitempty"`  // it can issue in the name of these: voters
}

// Presence says that a machine is there. Stored at alive/<id> under the lease of that machine's agent.
type Presence struct {
	ID      ID                `json:"id"`
	Name    string            `json:"name"`
	Addr    string            `json:"addr"`             // IP that other machines reach it by
	API     string            `json:"api"`              // host:port of its API
	Peer    string            `json:"peer,omitempty"`   // host:port where its member of the store listens, or would
	Keys    string            `json:"keys,omitempty"`   // host:port of the applications' keys on it; "" if it serves none
	Labels  map[string]string `json:"labels,omitempty"` // from the command line of flota up
	Size    Size              `json:"size"`
	Version string            `json:"version"`
	BootID  string            `json:"bootID"`  // changes when the host boots
	Started time.Time         `json:"started"` // when the agent started
	// Leaving: the machine shuts down cleanly; its units are to be started elsewhere first.
	Leaving bool `json:"leaving,omitempty"`
	// Restarting: the agent announced a planned restart; its presence stays for up to 60 s without it.
	Restarting bool `json:"restarting,omitempty"`
}

// Size is what a machine offers to units. Zero means unknown, which is never a reason to refuse.
type Size struct {
	MemBytes  int64 `json:"memBytes"`
	CPUMillis int64 `json:"cpuMillis"` // thousandths of a core
}

// Labels merges the machine's own labels with those set through the API; "" removes a label.
func Labels(p Presence, m Machine) map[string]string {
	all := maps.Clone(p.Labels)
	if all == nil {
		all = map[string]string{}
	}
	for k, v := range m.Labels {
		if v == "" {
			delete(all, k)
		} else {
			all[k] = v
		}
	}
	return all
}

// PrintLabels gives "k=v,k=v" sorted by key, or "-" for none, as fleetctl prints metadata.
func PrintLabels(l map[string]string) string {
	if len(l) == 0 {
		return "-"
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(l)) {
		out = append(out, k+"="+l[k])
	}
	return strings.Join(out, ",")
}

// nameForm: DNS label characters, so that a name can be a host name.
var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName refuses names that could not be a host name: fault.Invalid.
func CheckName(s string) error {
	if !nameForm.MatchString(s) {
		return fault.New(fault.Invalid, "machine name %q: want 1-63 of a-z, 0-9 and -, not starting or ending with -", s)
	}
	return nil
}

// keyForm is fleet's form of a metadata key.
var keyForm = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// ParseLabel splits "k=v". Errors are fault.Invalid.
func ParseLabel(s string) (key, value string, err error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok || !keyForm.MatchString(key) {
		return "", "", fault.New(fault.Invalid, "label %q: want key=value, the key of letters, digits, _ . -", s)
	}
	return key, value, nil
}
