package trust

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"flota/internal/fault"
	"flota/internal/machine"
)

// Rotation is how far a change of the authority is. Stored in machine.Cluster.Rotation together with the bundle: one transaction per step, so
// that whoever leads after a crash goes on from what is stored.
//
// A change takes three steps, each of which waits until every machine has done its part. Spread: the new authority is trusted beside the old
// one, which still issues; its key goes to every voter. Reissue: the new one issues, and every machine renews its leaf. Drop: the old one is
// trusted no more. Nothing stops working in between, because at each moment every machine trusts what every other one shows;
// only a handshake that lasts from before one step to after the next may fail, and is made again.
//
// Machines that are away are not waited for. One that comes back with nothing but the old authority still believes the others, whose
// certificates come with a link from the new authority to the old one; they let it in to renew because the machine table has its key.
//
// The engine's members of the store dial with the authorities they began with: after the last step each voter's member is restarted, one at a
// time, so that it too stops trusting the old authority. Until then it goes on by the same links.
type Rotation string

// The steps. They are stored: never rename.
const (
	Steady  Rotation = ""
	Spread  Rotation = "spread"
	Reissue Rotation = "reissue"
	Drop    Rotation = "drop"
)

// Standing is what a machine says of its own trust; hashes are in the form of CAHash.
type Standing struct {
	Trusts []string `json:"trusts"`          // the authorities it trusts, the issuing one first
	Issuer string   `json:"issuer"`          // the one that issued its leaf; "" if it does not trust that one
	Holds  []string `json:"holds,omitempty"` // those whose keys it keeps
}

// Seat is one machine in a change of the authority.
type Seat struct {
	ID       machine.ID
	Name     string
	Live     bool // there is a sign of life, so that Standing is true
	Voter    bool // it is wanted to hold the authority's key
	Standing Standing
}

// Step is what is to be stored next.
type Step struct {
	Rotation Rotation
	// Trust is the order of the new bundle, by hash; the certificates are those of the old bundle. See Arrange.
	Trust []string
	// Make: the leading machine makes a successor (Identity.Successor) and adds it at the end of the bundle before it stores the step.
	Make bool
	// Wait: nothing is to be stored, the step is not over.
	Wait   bool
	Reason string // why, for people
}

// Begin is the first step of a change. trust is the bundle now, by hash. fault.Conflict: a change is under way.
func Begin(now Rotation, trust []string) (Step, error) {
	if now != Steady {
		return Step{}, fault.WithHint(fault.New(fault.Conflict, "the authority is being changed already (step %s)", now),
			"flota trust show says what it waits for")
	}
	return Step{Rotation: Spread, Trust: trust, Make: true, Reason: "a change of the authority was asked for"}, nil
}

// NextStep says how a change goes on. trust is the bundle that is stored, by hash, the issuing authority first; seats are all machines of the
// cluster. Storing what it says and asking again leads to Steady when every machine that is there has followed. Pure.
func NextStep(now Rotation, trust []string, seats []Seat) Step {
	wait := Step{Rotation: now, Trust: trust, Wait: true}
	if now == Steady || len(trust) == 0 {
		wait.Reason = "the authority is not being changed"
		return wait
	}
	next := trust[0]
	if now == Spread {
		next = trust[len(trust)-1]
	}
	if s, lost := lostKey(now, next, trust, seats); lost {
		return s
	}
	var late []string
	for _, s := range seats {
		if why := behind(now, next, trust, s); why != "" {
			late = append(late, s.Name+" "+why)
		}
	}
	if len(late) > 0 {
		slices.Sort(late)
		wait.Reason = shorten(late)
		return wait
	}
	switch now {
	case Spread:
		rest := slices.DeleteFunc(slices.Clone(trust), func(h string) bool { return h == next })
		return Step{Rotation: Reissue, Trust: append([]string{next}, rest...), Reason: "every machine trusts the new authority, every voter holds its key"}
	case Reissue:
		return Step{Rotation: Drop, Trust: trust[:1], Reason: "every machine has a certificate of the new authority"}
	default:
		return Step{Rotation: Steady, Trust: trust[:1], Reason: "no machine trusts the old authority any more"}
	}
}

// lostKey handles that no voter is left that holds the key of the new authority: a further one is made. It needs voters that are there; without
// any, nobody could tell.
func lostKey(now Rotation, next string, trust []string, seats []Seat) (Step, bool) {
	live := slices.DeleteFunc(slices.Clone(seats), func(s Seat) bool { return !s.Voter || !s.Live })
	has := func(h string) bool {
		return slices.ContainsFunc(live, func(s Seat) bool { return slices.Contains(s.Standing.Holds, h) })
	}
	if len(live) == 0 || has(next) || now == Drop {
		return Step{}, false
	}
	old := slices.DeleteFunc(slices.Clone(trust), func(h string) bool { return !has(h) })
	if len(old) == 0 {
		return Step{Rotation: now, Trust: trust, Wait: true, Reason: "no voter that is there holds the key of a trusted authority"}, true
	}
	order := old[:1]
	if now == Spread { // nothing was issued by it
		return Step{Rotation: Spread, Trust: order, Make: true, Reason: "no voter that is there holds the new authority's key: another one is made"}, true
	}
	order = append(slices.Clone(order), slices.DeleteFunc(slices.Clone(trust), func(h string) bool { return h == old[0] })...)
	return Step{Rotation: Spread, Trust: order, Make: true, Reason: "no voter that is there holds the new authority's key: another one is made"}, true
}

// behind says what a machine has not done yet of a step; "" for nothing.
func behind(now Rotation, next string, trust []string, s Seat) string {
	switch {
	case !s.Live && s.Voter:
		return "is a voter and away"
	case !s.Live:
		return ""
	case !slices.Equal(s.Standing.Trusts, trust):
		return "has not taken over which authorities are trusted"
	case s.Voter && !slices.Contains(s.Standing.Holds, next):
		return "does not hold the new authority's key"
	case now != Spread && s.Standing.Issuer != next:
		return "has a certificate of the old authority"
	}
	return ""
}

// shorten names the first three.
func shorten(late []string) string {
	if n := len(late) - 3; n > 0 {
		return fmt.Sprintf("%s and %d more are waited for", strings.Join(late[:3], ", "), n)
	}
	return strings.Join(late, ", ")
}

// Standing says what this machine has done of a change of the authority: it goes to the leader.
func (i *Identity) Standing() Standing {
	s := i.now.Load()
	out := Standing{Trusts: hashes(s.trusted)}
	for _, c := range s.trusted {
		if issuedBy(s.leaf, c) {
			out.Issuer = hashMark + certHash(c)
		}
	}
	for _, a := range s.ring {
		out.Holds = append(out.Holds, a.Hash())
	}
	return out
}

// hashes names authorities.
func hashes(certs []*x509.Certificate) []string {
	var out []string
	for _, c := range certs {
		out = append(out, hashMark+certHash(c))
	}
	return out
}

// BundleHashes gives the hashes of a bundle (PEM) in its order: what NextStep takes. fault.Invalid.
func BundleHashes(bundle []byte) ([]string, error) {
	certs, err := readBundle(bundle)
	return hashes(certs), err
}

// Arrange makes the bundle (PEM) of a step: the authorities with the hashes of order, in that order, taken out of bundle, then more (PEM), if any.
// fault.Invalid, also when one of order is not there.
func Arrange(bundle []byte, order []string, more []byte) ([]byte, error) {
	certs, err := readBundle(bundle)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, h := range order {
		at := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return hashMark+certHash(c) == h })
		if at < 0 {
			return nil, fault.New(fault.Invalid, "authority %s is not in the bundle", h)
		}
		out = append(out, certs[at])
	}
	text := append(certPEM(out...), more...)
	_, err = readBundle(text)
	return text, err
}
