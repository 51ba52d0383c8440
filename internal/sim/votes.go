package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/store"
	"flota/internal/store/etcd"
)

// What is checked of a council: all the while, that no change takes a working majority away (room sim/engine), that the number of voters does not
// shrink because machines are away (checkRemove), that a witness gets no unit (watchPlace), that only a leading steward writes votes (gatedKV).
// At rest, that the votes written down, the engine's members and what each machine does are one, and as many as they should be (discord).

// councilWithin is how much longer it may take until voters are at rest: a copy that is not ready (5 min), a machine that is back for less than
// quorum.DefaultSettle, each once.
const councilWithin = quorum.DefaultStall + quorum.DefaultSettle

// bySize is how many voters n machines are to have, and how many copies beside them. Source: the table.
func bySize(n int) (voters, learners int) {
	switch {
	case n >= 7:
		return 5, 0
	case n >= 3:
		return 3, 0
	case n == 2:
		return 1, 1
	}
	return 1, 0
}

// odd is the number of voters that n or n-1 voters are on their way to: one that is replaced may have gone already.
func odd(n int) int { return max((n-1)|1, 1) }

// checkRemove holds that a voter's removal does not make the store smaller than the table of machines wants it, and as there are machines
// for: those that are there, and those that vote already.
func (c *Cluster) checkRemove(id uint64) {
	machines, _, err := c.truth.Machines.List(c.t.Context(), "", store.Read{})
	if err != nil {
		return // the story is over
	}
	members := c.engine().Members()
	voters, _ := count(members)
	all, pool, known := 0, 0, false
	for _, e := range machines {
		if e.Value.Leaving {
			continue
		}
		i := slices.IndexFunc(members, func(m etcd.Member) bool { return !m.Learner && m.Peer == c.byID(e.Value.ID).peer })
		known = known || i >= 0 && members[i].ID == id
		if time.Since(e.Value.Joined) > time.Minute {
			all++
		}
		if _, there, err := c.truth.Alive.Get(c.t.Context(), e.Key, store.Read{}); err == nil && (there || i >= 0) {
			pool++
		}
	}
	if want, _ := bySize(all); known && odd(voters) < min(want, odd(voters+1), odd(pool)) {
		c.fail("quorum: %d machines, of which %d could vote, have %d voters, and another one is removed: %+v", all, pool, voters, members)
	}
}

// discord says what is not as it should be with the store's members; "" when all is.
func (c *Cluster) discord() string {
	if !c.engine().Quorum() {
		return fmt.Sprintf("no majority of %+v lives", c.engine().Members())
	}
	votes, _, err := c.truth.Voters.List(c.t.Context(), "", store.Read{})
	c.must(err)
	members, all, up := c.engine().Members(), 0, 0
	if len(votes) != len(members) {
		return fmt.Sprintf("%d votes of %d members", len(votes), len(members))
	}
	for _, n := range c.all() {
		if n.isGone() {
			continue
		}
		all++
		on, off := n.discord(votes, members)
		if off != "" {
			return off
		}
		if on {
			up++
		}
	}
	return c.few(members, all, up)
}

// few says whether there are other than the wanted members, when all machines are there.
func (c *Cluster) few(members []etcd.Member, all, up int) string {
	voters, learners := count(members)
	wantVoters, wantLearners := bySize(all)
	if up == all && (voters != wantVoters || learners != wantLearners) {
		return fmt.Sprintf("%d voters and %d copies of %d machines: %+v", voters, learners, all, members)
	}
	for _, n := range c.all() {
		if p := n.current(); p != nil && up == all && !n.isGone() {
			if st, _, ok := p.seat.status(); ok && st.Leads && st.Trouble+fmt.Sprint(st.Waiting, st.Doing) != "[] []" {
				return fmt.Sprintf("the steward of %s has trouble %q, waits for %q, does %v", n.name, st.Trouble, st.Waiting, st.Doing)
			}
		}
	}
	return ""
}

func count(members []etcd.Member) (voters, learners int) {
	for _, m := range members {
		if m.Learner {
			learners++
		} else {
			voters++
		}
	}
	return voters, learners
}

// discord holds the machine's vote against the engine and, if it is on, what it does.
func (n *Node) discord(votes []store.Entry[machine.Vote], members []etcd.Member) (on bool, off string) {
	role, id := machine.Client, ""
	if i := slices.IndexFunc(members, func(m etcd.Member) bool { return m.Peer == n.peer }); i >= 0 {
		role, id = machine.Voter, quorum.MemberID(members[i].ID)
		if members[i].Learner {
			role = machine.Learner
		}
	}
	if i := slices.IndexFunc(votes, func(e store.Entry[machine.Vote]) bool { return e.Value.Machine == n.id }); i < 0 && role != machine.Client ||
		i >= 0 && (votes[i].Value.Role != role || votes[i].Value.Member != id) {
		return false, fmt.Sprintf("the vote of %s is not %q of member %q: %+v", n.name, role, id, votes)
	}
	p := n.current()
	if p == nil || !n.hears() {
		return false, ""
	}
	_, r, ok := p.seat.status()
	n.mu.Lock()
	holds := n.holds
	n.mu.Unlock()
	switch {
	case !ok:
		return true, n.name + " is still starting"
	case (r.Member != nil) != (role != machine.Client), r.Votes != (role == machine.Voter), r.Member != nil && quorum.MemberID(r.Member.MemberID()) != id:
		return true, fmt.Sprintf("%s is to be %q and does %+v", n.name, role, r)
	case holds != (role != machine.Client) && n.i != 1: // the founder has made it itself
		return true, fmt.Sprintf("%s is %q; holds the authority's key: %v", n.name, role, holds)
	}
	return true, ""
}

// Council waits until the voters are as they should be, and gives how long that took.
func (c *Cluster) Council(within time.Duration) time.Duration {
	c.t.Helper()
	began, off := time.Now(), ""
	for time.Since(began) < within && !c.Broken() {
		if off = c.discord(); off == "" {
			return time.Since(began)
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.fail("quorum: the voters are not as they should be after %s: %s", within, off)
	return within
}

// calm lets pass what time alone changes in a council: machines that are back for long enough are trusted again, and learners given up.
func (k *council) calm() time.Duration {
	s := k.settings
	return 10*time.Second + max(cmp.Or(s.Settle, quorum.DefaultSettle), cmp.Or(s.Replace, quorum.DefaultReplace), cmp.Or(s.Stall, quorum.DefaultStall))
}

// WantVoters checks which machines vote, given by their numbers.
func (c *Cluster) WantVoters(want ...int) {
	c.t.Helper()
	if got := c.VotersNow(); !slices.Equal(got, want) {
		c.fail("quorum: machines %v vote, want %v", got, want)
	}
}

// VotersNow gives the numbers of the machines that vote.
func (c *Cluster) VotersNow() (votes []int) {
	for _, n := range c.all() {
		if slices.ContainsFunc(c.engine().Members(), func(m etcd.Member) bool { return !m.Learner && m.Peer == n.peer }) {
			votes = append(votes, n.i)
		}
	}
	return votes
}
